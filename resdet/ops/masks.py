"""Resamples masks from the frame of one box to the frame of another.

Coordinates inside a frame of B x B cells run from 0 at the box's top left corner to B at its bottom right one.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

# Half coverage counts as covered in spite of rounding: the margin is less than one step of a coverage in 0 .. 255.
HALF = 0.5 - 1e-3
SMALLEST = 1e-6  # pixels: the least divisor for a side; empty boxes contain nothing but must give finite numbers


@torch.no_grad()
def crop_masks(
    masks: UInt8[Tensor, "N G B B"],
    frames: Float[Tensor, "N R 4"],
    index: Int64[Tensor, "N R"],
    boxes: Float[Tensor, "N R 4"],
    resolution: int,
) -> Bool[Tensor, "N R {resolution} {resolution}"]:
    """Which cells of each box an object covers by half or more (He et al. 2017, section 3.1).

    Args:
        masks: coverage 0 .. 255 of each cell of an object's frame; outside its frame the coverage is zero.
        frames: the box of the selected mask.
        index: the mask (of G) that each box uses.
        boxes: the boxes of the result, divided into resolution x resolution cells.
    """
    return coverage(masks, frames, index, boxes, resolution) >= HALF


@torch.no_grad()
def coverage(
    masks: UInt8[Tensor, "N G B B"],
    frames: Float[Tensor, "N R 4"],
    index: Int64[Tensor, "N R"],
    boxes: Float[Tensor, "N R 4"],
    resolution: int,
) -> Float[Tensor, "N R {resolution} {resolution}"]:
    """The fraction of each cell of a box that an object covers, 0 .. 1: the exact mean of the mask over the cell.

    Arguments are those of `crop_masks`. A cell is a rectangle in the mask's frame, so the mean is a product of one
    matrix for the rows and one for the columns. It is exact for any size of cell, because it uses no samples.
    """
    cells = masks.shape[-1]
    image = torch.arange(len(masks), device=masks.device)[:, None]
    chosen = masks[image, index].float() / 255
    side = (frames[..., 2:] - frames[..., :2]).clamp(min=SMALLEST)
    corners = (boxes.unflatten(-1, (2, 2)) - frames[..., None, :2]) / side[..., None, :] * cells  # (N, R, corner, xy)
    with torch.autocast(masks.device.type, enabled=False):
        rows = _shares(corners[..., 0, 1], corners[..., 1, 1], resolution, cells)
        columns = _shares(corners[..., 0, 0], corners[..., 1, 0], resolution, cells)
        return rows @ chosen @ columns.mT


def _shares(
    first: Float[Tensor, "N R"], last: Float[Tensor, "N R"], bins: int, cells: int
) -> Float[Tensor, "N R {bins} {cells}"]:
    """For each of the bins between `first` and `last`, the fraction of it that lies in each unit cell of 0 .. cells."""
    step = ((last - first) / bins).clamp(min=SMALLEST)
    edges = first[..., None] + step[..., None] * torch.arange(bins + 1, device=first.device)
    # the part of each cell to the left of an edge
    filled = (edges[..., None] - torch.arange(cells, device=first.device)).clamp(0, 1)
    return filled.diff(dim=-2) / step[..., None, None]
