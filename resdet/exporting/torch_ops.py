"""The custom operators of resdet in terms of torch and torchvision, for a graph that runs without resdet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from resdet.ops import nms, roi_kernels  # noqa: F401  # registers the operators

KERNELS = torch.ops.torchvision


def padded_nms(boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor, iou_threshold: float, keep: int) -> Tensor:
    """One call for all images and groups, whose boxes are moved apart; float64 keeps the coordinates exact.

    Two boxes are added that overlap no other: an exported graph takes it that torchvision's operator keeps two or more.
    """
    images, count = scores.shape
    image = torch.arange(images, device=boxes.device)[:, None]
    place = (image * (groups.amax() + 1) + groups).flatten()
    candidates = valid.flatten().nonzero().squeeze(1)
    torch._check(candidates.shape[0] <= images * count)
    apart = boxes.flatten(0, 1).double()
    apart = apart + (place * (boxes.amax() - boxes.amin() + 1).double())[:, None]
    outside = apart.amin() - 3.0 * (torch.arange(2, device=boxes.device) + 1)[:, None]
    added = torch.cat([outside, outside, outside + 1, outside + 1], dim=1)
    rest = scores.new_full((2,), -torch.inf)
    places = torch.cat([candidates, torch.arange(2, device=boxes.device) + images * count])
    chosen = KERNELS.nms(
        torch.cat([apart, added])[places], torch.cat([scores.flatten(), rest])[places].double(), iou_threshold
    )
    kept = torch.cat([torch.zeros_like(valid.flatten()), valid.new_zeros(2)]).index_fill(0, places[chosen], value=True)
    remaining = kept[: images * count].view_as(valid)
    ranked = torch.where(remaining, scores, -torch.inf)
    ranked = torch.nn.functional.pad(ranked, (0, keep), value=-torch.inf)
    best, index = ranked.sort(dim=1, descending=True, stable=True)
    return torch.where(best[:, :keep] > -torch.inf, index[:, :keep], -1)


def roi_align(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    resolution: int,
    sampling_ratio: int,
    aligned: bool,  # noqa: FBT001  # the schema of an operator is positional
) -> Tensor:
    """Every region at every level, of which its own is kept: a shape that does not depend on values."""
    pooled = torch.zeros(())
    for level, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        bins = (scale, resolution, resolution, sampling_ratio, aligned)
        own = (levels == level)[:, None, None, None]
        pooled = torch.where(own, KERNELS.roi_align(feature.float(), rois, *bins), pooled)
    return pooled.to(features[0].dtype)


def roi_pool(
    features: Sequence[Tensor], rois: Tensor, levels: Tensor, scales: Sequence[float], resolution: int
) -> tuple[Tensor, Tensor]:
    pooled, cells = torch.zeros(()), torch.zeros((), dtype=torch.int32)
    for level, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        own = (levels == level)[:, None, None, None]
        values, places = KERNELS.roi_pool(feature.float(), rois, scale, resolution, resolution)
        pooled, cells = torch.where(own, values, pooled), torch.where(own, places, cells)
    return pooled.to(features[0].dtype), cells


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    torch.ops.resdet.padded_nms.default: padded_nms,
    torch.ops.resdet.roi_align.default: roi_align,
    torch.ops.resdet.roi_pool.default: roi_pool,
}
