"""The four nouns through which data, models and evaluation meet, and the package's conventions.

Everything is dense: N images are one batch, every list is padded to a fixed length, and a boolean
`valid` says which entries are real. No shape depends on values.

Letters, the same everywhere:
    N images   G ground-truth slots   A anchors over all levels   P proposals   R sampled RoIs per image
    D detections per image   K object classes   C channels   L pyramid levels   H, W height and width

Conventions, stated here and assumed everywhere else:
    boxes      (x1, y1, x2, y2) in float32 pixels of the padded input; width is x2 - x1, without a + 1
    sizes      (height, width) of each image inside the padded batch, in pixels
    labels     0 .. K-1; background is K and only the box head uses it
    images     RGB, 0 .. 255, padded on the right and at the bottom with zeros
    masks      an object's mask lives in the frame of its box: B x B (targets) or M x M (detections) cells, row by row
    padding    an entry that is not `valid` holds a zero box, zero score, label 0
    precision  coordinates, decoding, NMS and losses stay float32 under autocast
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int64, Shaped, UInt8
from torch import Tensor

Noun = TypeVar("Noun", bound="_Dense")  # the shape checks of the tests do not accept typing.Self


@dataclass(frozen=True)
class _Dense:
    """Moves all tensors of an object at once."""

    def to(self: Noun, device: torch.device | str, *, non_blocking: bool = False) -> Noun:
        moved = {
            field.name: value.to(device, non_blocking=non_blocking)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor | _Dense)
        }
        return replace(self, **moved)

    def pin_memory(self: Noun) -> Noun:
        """Page-locked copies, for an asynchronous copy to a GPU (called by the DataLoader)."""
        pinned = {
            field.name: value.pin_memory()
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor | _Dense)
        }
        return replace(self, **pinned)


@dataclass(frozen=True)
class Targets(_Dense):
    """Ground truth. Crowd regions are never matched; candidates that lie in them do not contribute to the losses.

    `seeds` holds one number in [0, 2**32) for each sample. All random sampling of anchors and RoIs is a stateless
    function of it, so the losses depend on weights and batch alone: the same after a resume, in any number of
    processes, eager or compiled. `masks` are the coverage of each cell of an object's box, 0 .. 255; an object without
    a mask has zeros (B is data.mask_resolution).
    """

    boxes: Float[Tensor, "N G 4"]
    labels: Int64[Tensor, "N G"]
    crowd: Bool[Tensor, "N G"]
    valid: Bool[Tensor, "N G"]
    seeds: Int64[Tensor, " N"]
    masks: UInt8[Tensor, "N G B B"] | None = None


@dataclass(frozen=True)
class Proposals(_Dense):
    """Class-agnostic boxes, best first; `scores` are objectness logits."""

    boxes: Float[Tensor, "N P 4"]
    scores: Float[Tensor, "N P"]
    valid: Bool[Tensor, "N P"]


@dataclass(frozen=True)
class Batch(_Dense):
    """Images padded to one size, and (in training) their targets.

    `proposals` are training regions that replace the model's own.
    """

    images: Shaped[Tensor, "N 3 H W"]
    sizes: Int64[Tensor, "N 2"]
    targets: Targets | None = None
    proposals: Proposals | None = None


@dataclass(frozen=True)
class Detections(_Dense):
    """Final boxes, best first; `scores` are class probabilities, `masks` the probability of each cell of a box."""

    boxes: Float[Tensor, "N D 4"]
    scores: Float[Tensor, "N D"]
    labels: Int64[Tensor, "N D"]
    valid: Bool[Tensor, "N D"]
    masks: Float[Tensor, "N D M M"] | None = None
