"""Pads samples into a dense batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

from resdet.config import ModelConfig
from resdet.structures import Batch, Targets

SMALLEST_SIDE = 16  # pixels: one cell of a map of stride 16, even if a network rounds down
# The sides of a batch are multiples of this number of pixels, by model.neck.name. A pyramid adds maps of several
# strides, so none of them may be rounded; with a single map the sizes are not rounded, as in Detectron2's C4 and DC5
# (its `size_divisibility` of 0). A user's own neck counts as a pyramid unless it adds a row.
SIZE_DIVISORS = {"fpn": 32, "pafpn": 32, "c4": 1, "dc5": 1}
ROWS = 64  # rows of an image whose channels are separated at a time
SLOT_MULTIPLE = 8  # ground-truth slots: few different shapes cause few recompilations


@dataclass(frozen=True)
class ImageInfo:
    """The origin of an image of a batch; `scale_*` is the resized size divided by the original size."""

    image_id: int
    file_name: str
    height: int  # of the original image, in pixels
    width: int
    scale_y: float
    scale_x: float


def boxes_in_original(boxes: Float32[Tensor, "D 4"], image: ImageInfo) -> Float32[np.ndarray, "D 4"]:
    """Converts boxes in the resized image, (x1, y1, x2, y2), to boxes in the original image, clipped to it."""
    scale = np.array([image.scale_x, image.scale_y] * 2, dtype=np.float32)
    limit = np.array([image.width, image.height] * 2, dtype=np.float32)
    return np.clip(boxes.numpy() / scale, 0, limit)


@dataclass(frozen=True)
class LoadedBatch:
    """`unreadable` has the id and the problem of every image that could not be read; the batch contains a blank in its
    place. `dropped` counts the objects that a list of transforms removed, by reason.
    """

    batch: Batch
    images: tuple[ImageInfo, ...]
    unreadable: Mapping[int, str] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)

    def pin_memory(self) -> LoadedBatch:
        return replace(self, batch=self.batch.pin_memory())


@dataclass(frozen=True)
class Sample:
    """One image, ready for its batch."""

    image: UInt8[np.ndarray, "h w 3"]
    boxes: Float32[np.ndarray, "n 4"]
    labels: Int64[np.ndarray, " n"]
    crowd: Bool[np.ndarray, " n"]
    seed: int
    info: ImageInfo
    masks: UInt8[np.ndarray, "n B B"] | None = None  # in the frames of the boxes
    problem: str | None = None  # the reason why the image is a blank
    dropped: Mapping[str, int] = field(default_factory=dict)  # objects that augmentation removed, by reason


def round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def size_divisor(model: ModelConfig) -> int:
    """The number of which the sides of this detector's batches are multiples, in training, evaluation
    and prediction.
    """
    return SIZE_DIVISORS.get(model.neck.name, max(SIZE_DIVISORS.values()))


def padded_shape(sizes: Sequence[tuple[int, int]], divisor: int) -> tuple[int, int]:
    """The (height, width) of a batch for images of these sizes, rounded up to multiples of `divisor` pixels."""
    height, width = (max(SMALLEST_SIDE, *sides) for sides in zip(*sizes, strict=True))
    return round_up(height, divisor), round_up(width, divisor)


def ground_truth_slots(objects: int) -> int:
    """The number G of slots for images with at most this many annotations."""
    return max(round_up(objects, SLOT_MULTIPLE), SLOT_MULTIPLE)


def collate(samples: Sequence[Sample], *, shape: tuple[int, int], slots: int) -> LoadedBatch:
    """Pads the images with zeros on the right and at the bottom to `shape`, and the annotations to `slots`
    per image.
    """
    count = len(samples)
    images = torch.empty(count, 3, *shape, dtype=torch.uint8)  # torch.zeros takes new memory from the system each time
    boxes = torch.zeros(count, slots, 4)
    labels = torch.zeros(count, slots, dtype=torch.int64)
    crowd = torch.zeros(count, slots, dtype=torch.bool)
    valid = torch.zeros(count, slots, dtype=torch.bool)
    for row, sample in enumerate(samples):
        objects = len(sample.boxes)
        _place(sample.image, images[row].numpy())
        boxes[row, :objects] = torch.from_numpy(sample.boxes)
        labels[row, :objects] = torch.from_numpy(sample.labels)
        crowd[row, :objects] = torch.from_numpy(sample.crowd)
        valid[row, :objects] = True
    sizes = torch.tensor([sample.image.shape[:2] for sample in samples], dtype=torch.int64)
    seeds = torch.tensor([sample.seed for sample in samples], dtype=torch.int64)
    masks = _collate_masks([sample.masks for sample in samples if sample.masks is not None], slots)
    return LoadedBatch(
        batch=Batch(images, sizes, Targets(boxes, labels, crowd, valid, seeds, masks)),
        images=tuple(sample.info for sample in samples),
        unreadable={sample.info.image_id: sample.problem for sample in samples if sample.problem},
        dropped=sum((Counter(sample.dropped) for sample in samples), Counter()),
    )


def _place(image: UInt8[np.ndarray, "h w 3"], channels: UInt8[np.ndarray, "3 H W"]) -> None:
    """Writes an image into the corner of its place in a batch, and zeros beside and below it.

    OpenCV separates the channels several times as fast as a transposed copy. Some rows at a time stay in the cache.
    """
    height, width = image.shape[:2]
    channels[:, height:] = 0
    channels[:, :height, width:] = 0
    for top in range(0, height, ROWS):
        rows = slice(top, min(top + ROWS, height))
        for channel, place in zip(cv2.split(image[rows]), channels, strict=True):
            place[rows, :width] = channel


def _collate_masks(masks: Sequence[UInt8[np.ndarray, "_ B B"]], slots: int) -> UInt8[Tensor, "N G B B"] | None:
    """None if the samples have no masks."""
    if not masks:
        return None
    padded = torch.zeros(len(masks), slots, *masks[0].shape[1:], dtype=torch.uint8)
    for row, objects in zip(padded, masks, strict=True):
        row[: len(objects)] = torch.from_numpy(objects)
    return padded
