"""Areas, overlaps and clipping of boxes (x1, y1, x2, y2)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

SMALLEST_UNION = 1e-7  # square pixels, the least divisor: keeps the overlap of empty boxes and its gradient finite


def box_area(boxes: Float[Tensor, "*S 4"]) -> Float[Tensor, "*S"]:
    """Width times height in square pixels; zero for a box with negative width or height."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def shared_area(first: Float[Tensor, "*#S 4"], second: Float[Tensor, "*#S 4"]) -> Float[Tensor, "*#S"]:
    """The intersection area of each pair in square pixels."""
    top_left = torch.maximum(first[..., :2], second[..., :2])
    bottom_right = torch.minimum(first[..., 2:], second[..., 2:])
    return (bottom_right - top_left).clamp(min=0).prod(-1)


def iou_and_union(
    first: Float[Tensor, "*#S 4"], second: Float[Tensor, "*#S 4"]
) -> tuple[Float[Tensor, "*#S"], Float[Tensor, "*#S"]]:
    """Intersection over union of each pair, 0 where both boxes are empty, and their union in square pixels."""
    shared = shared_area(first, second)
    union = box_area(first) + box_area(second) - shared
    return shared / union.clamp(min=SMALLEST_UNION), union


def box_iou(first: Float[Tensor, "N A 4"], second: Float[Tensor, "M G 4"]) -> Float[Tensor, "_ A G"]:
    """Intersection over union of every box with every other within an image; one of the two batches may have size 1 and
    is then used for all images.
    """
    return iou_and_union(first[:, :, None], second[:, None])[0]


def clip_boxes(boxes: Float[Tensor, "N P 4"], sizes: Int64[Tensor, "N 2"]) -> Float[Tensor, "N P 4"]:
    """Boxes clipped to their own image (not to the padded batch)."""
    limits = sizes.flip(-1).repeat(1, 2)[:, None].to(boxes.dtype)  # (N, 1, 4): width, height, width, height
    return torch.minimum(boxes.clamp(min=0), limits)


def is_nonempty(boxes: Float[Tensor, "*S 4"]) -> Bool[Tensor, "*S"]:
    return (boxes[..., 2:] > boxes[..., :2]).all(-1)
