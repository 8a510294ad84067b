"""Areas, overlaps and clipping of boxes (x1, y1, x2, y2)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


def box_area(boxes: Float[Tensor, "*S 4"]) -> Float[Tensor, "*S"]:
    """Width times height in square pixels; zero for a box turned inside out."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def intersection(first: Float[Tensor, "N A 4"], second: Float[Tensor, "M G 4"]) -> Float[Tensor, "_ A G"]:
    """Shared area of every pair within an image; one of the two batches may be 1 and is then shared by all images."""
    top_left = torch.maximum(first[:, :, None, :2], second[:, None, :, :2])
    bottom_right = torch.minimum(first[:, :, None, 2:], second[:, None, :, 2:])
    return (bottom_right - top_left).clamp(min=0).prod(-1)


def box_iou(first: Float[Tensor, "N A 4"], second: Float[Tensor, "M G 4"]) -> Float[Tensor, "_ A G"]:
    """Intersection over union of every pair within an image; 0 where both boxes are empty."""
    inter = intersection(first, second)
    union = box_area(first)[:, :, None] + box_area(second)[:, None, :] - inter
    return inter / union.clamp(min=torch.finfo(union.dtype).tiny)


def clip_boxes(boxes: Float[Tensor, "N P 4"], sizes: Int64[Tensor, "N 2"]) -> Float[Tensor, "N P 4"]:
    """Boxes cut to their own image (not to the padded batch)."""
    limits = sizes.flip(-1).repeat(1, 2)[:, None].to(boxes.dtype)  # (N, 1, 4): width, height, width, height
    return torch.minimum(boxes.clamp(min=0), limits)


def is_nonempty(boxes: Float[Tensor, "*S 4"]) -> Bool[Tensor, "*S"]:
    return (boxes[..., 2:] > boxes[..., :2]).all(-1)
