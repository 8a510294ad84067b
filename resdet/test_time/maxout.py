"""Regions pooled from two scales of an image and merged by maxout (He et al. 2015, appendix B; Ren et al. 2015b)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from resdet.models.second_stage.roi_pooler import RoIPooler
from resdet.ops.boxes import box_area
from resdet.ops.dense import constants
from resdet.ops.roi_align import CANONICAL_SIZE, assign_levels


def nearest_scales(boxes: Float[Tensor, "N R 4"], factors: Sequence[float]) -> Int64[Tensor, "N R two"]:
    """The indices of the two factors with which a box's area is nearest to 224 x 224 pixels, the nearest first.

    They are adjacent, because the area grows with the factor (He et al. 2014, "Spatial Pyramid Pooling", section 4.2).
    """
    area = box_area(boxes)[..., None] * constants(factors, boxes).square()
    return (area - CANONICAL_SIZE**2).abs().topk(min(2, len(factors)), largest=False).indices


def maxout_pool(
    pooler: RoIPooler,
    maps: Sequence[Sequence[Float[Tensor, "N C _h _w"]]],
    factors: Sequence[float],
    boxes: Float[Tensor, "N R 4"],
) -> Float[Tensor, "N*R C h w"]:
    """The element-wise maximum of a box's features at its two nearest scales.

    Args:
        pooler: the pooler of the detector.
        maps: feature maps of the images at each scale.
        factors: the size of the images at each scale, relative to the images of `boxes`.
    """
    count = len(pooler.strides)
    features = [level for scale in maps for level in scale[:count]]
    strides = [stride / factor for factor in factors for stride in pooler.strides]
    pooled = []
    for scale in nearest_scales(boxes, factors).unbind(-1):
        enlarged = boxes * constants(factors, boxes)[scale][..., None]
        level = assign_levels(enlarged, pooler.finest, pooler.coarsest) - pooler.finest
        pooled.append(pooler.pooling(features, strides, boxes, scale * count + level))
    return torch.stack(pooled).amax(0)
