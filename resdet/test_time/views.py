"""Resizes or mirrors batches, and maps boxes back."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from resdet.data.batches.collate import padded_shape
from resdet.ops.dense import constants, inside
from resdet.structures import Batch


def resized(batch: Batch, factor: float, *, divisor: int) -> Batch:
    """The images `factor` times as high and wide (bilinear, without aliasing), padded to `divisor`, without targets.

    The coordinates of a box in the result are exactly `factor` times those in the batch. Enlarging adds no detail.
    """
    if factor == 1:
        return Batch(batch.images, batch.sizes)
    images = batch.images.gather(2, _inside(batch, axis=0)[:, None, :, None].expand_as(batch.images))
    # the border of the image is repeated outside
    images = images.gather(3, _inside(batch, axis=1)[:, None, None, :].expand_as(images))
    images = F.interpolate(images.float(), scale_factor=factor, mode="bilinear", antialias=True)
    height, width = images.shape[2:]
    padded_height, padded_width = padded_shape([(height, width)], divisor)
    images = F.pad(images, (0, padded_width - width, 0, padded_height - height))
    limits = constants([height, width], batch.sizes)
    sizes = torch.minimum((batch.sizes * factor + 1e-3).long(), limits).clamp(min=1)
    return Batch(torch.where(inside(sizes, *images.shape[2:]), images, 0), sizes)


def mirrored(batch: Batch) -> Batch:
    """Each image mirrored from left to right within its own width, without targets."""
    column, width = _positions(batch, axis=1), batch.sizes[:, 1, None]
    source = torch.where(column < width, width - 1 - column, column)
    images = batch.images.gather(3, source[:, None, None, :].expand_as(batch.images))
    return Batch(images, batch.sizes)


def mirrored_boxes(boxes: Float[Tensor, "N D 4"], sizes: Int64[Tensor, "N 2"]) -> Float[Tensor, "N D 4"]:
    """The boxes in the mirrored images; applied twice it gives the original boxes."""
    width = sizes[:, 1, None].to(boxes.dtype)
    left, top, right, bottom = boxes.unbind(-1)
    return torch.stack([width - right, top, width - left, bottom], dim=-1)


def _inside(batch: Batch, *, axis: int) -> Int64[Tensor, "N side"]:
    """For each row or column, the nearest one that is not padding."""
    return torch.minimum(_positions(batch, axis=axis), batch.sizes[:, axis, None] - 1)


def _positions(batch: Batch, *, axis: int) -> Int64[Tensor, "N side"]:
    side = batch.images.shape[2 + axis]
    return torch.arange(side, device=batch.images.device).expand(len(batch.images), -1)
