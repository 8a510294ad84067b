"""RoIPool and RoIAlign: torchvision's kernels over all levels of a pyramid.

The number of cells that they read may depend on the boxes, so they are custom operators: opaque to a compiler, with a
result of fixed size and a backward operator. An exported graph has them in the place of the weighted sums of
`ops.roi_align`, because every runtime has kernels for them (`resdet/exporting`).
"""

# ruff: noqa: FBT001  # the schema of an operator is positional

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torchvision.ops  # noqa: F401  # registers the kernels
from jaxtyping import Float, Int64
from torch import Tensor

KERNELS = torch.ops.torchvision


def kernel_roi_align(
    features: Sequence[Float[Tensor, "N C _h _w"]],
    strides: Sequence[int | float],
    boxes: Float[Tensor, "N R 4"],
    levels: Int64[Tensor, "N R"],
    *,
    resolution: int,
    sampling_ratio: int,
    aligned: bool,
) -> Float[Tensor, "N*R C {resolution} {resolution}"]:
    """RoIAlign (He et al. 2017, section 3) by a kernel for each level.

    Arguments are those of `ops.roi_align.roi_align`.
    """
    scales = [1 / stride for stride in strides]
    return _align(list(features), _with_image(boxes), levels.flatten(), scales, resolution, sampling_ratio, aligned)


def roi_pool(
    features: Sequence[Float[Tensor, "N C _h _w"]],
    strides: Sequence[int | float],
    boxes: Float[Tensor, "N R 4"],
    levels: Int64[Tensor, "N R"],
    *,
    resolution: int,
) -> Float[Tensor, "N*R C {resolution} {resolution}"]:
    """The largest value of each bin, boxes and bins rounded to whole cells (Girshick 2015, section 2.1)."""
    scales = [1 / stride for stride in strides]
    return _pool(list(features), _with_image(boxes), levels.flatten(), scales, resolution)[0]


def _with_image(boxes: Float[Tensor, "N R 4"]) -> Float[Tensor, "NR 5"]:
    """The form that the kernels require: the index of the image, then the box."""
    image = torch.arange(boxes.shape[0], device=boxes.device, dtype=torch.float32)
    return torch.cat([image[:, None, None].expand(-1, boxes.shape[1], 1), boxes.float()], dim=-1).flatten(0, 1)


def _by_level(levels: Tensor, count: int, of_level: Callable[[int, Any], Tensor]) -> Tensor:
    """Applies `of_level` to each level's regions, and puts the results back into the order of all regions."""
    if count == 1:
        return of_level(0, slice(None))
    members = [(levels == level).nonzero().squeeze(1) for level in range(count)]
    results = torch.cat([of_level(level, regions) for level, regions in enumerate(members)])
    return results[torch.cat(members).argsort()]


def _members(levels: Tensor, count: int, level: int) -> Any:
    return slice(None) if count == 1 else levels == level


@torch.library.custom_op(
    "resdet::roi_align",
    mutates_args=(),
    schema="(Tensor[] features, Tensor rois, Tensor levels, float[] scales, int resolution,"
    " int sampling_ratio, bool aligned) -> Tensor",
)
def _align(
    features: list[Tensor],
    rois: Tensor,
    levels: Tensor,
    scales: list[float],
    resolution: int,
    ratio: int,
    aligned: bool,
) -> Tensor:
    def of_level(level: int, regions: Any) -> Tensor:
        bins = (scales[level], resolution, resolution, ratio, aligned)
        return KERNELS.roi_align(features[level].float(), rois[regions], *bins)

    return _by_level(levels, len(features), of_level).to(features[0])


@_align.register_fake
def _(
    features: list[Tensor],
    rois: Tensor,
    levels: Tensor,
    scales: list[float],
    resolution: int,
    ratio: int,
    aligned: bool,
) -> Tensor:
    return features[0].new_empty((rois.shape[0], features[0].shape[1], resolution, resolution))


@torch.library.custom_op(
    "resdet::roi_align_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor[] features, Tensor rois, Tensor levels, float[] scales,"
    " int sampling_ratio, bool aligned) -> Tensor[]",
)
def _align_backward(
    grad: Tensor, features: list[Tensor], rois: Tensor, levels: Tensor, scales: list[float], ratio: int, aligned: bool
) -> list[Tensor]:
    gradients = []
    for level, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        regions = _members(levels, len(features), level)
        bins = (scale, *grad.shape[2:], *feature.shape, ratio, aligned)
        gradient = KERNELS._roi_align_backward(grad[regions].float(), rois[regions], *bins)
        gradients.append(gradient.to(feature))
    return gradients


@_align_backward.register_fake
def _(
    grad: Tensor, features: list[Tensor], rois: Tensor, levels: Tensor, scales: list[float], ratio: int, aligned: bool
) -> list[Tensor]:
    return [torch.empty_like(feature, memory_format=torch.contiguous_format) for feature in features]


def _keep_for_align(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, rois, levels, ctx.scales, _, ctx.ratio, ctx.aligned = inputs
    ctx.save_for_backward(rois, levels, *features)


def _grad_of_align(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    rois, levels, *features = ctx.saved_tensors
    gradients = _align_backward(grad, features, rois, levels, ctx.scales, ctx.ratio, ctx.aligned)
    return gradients, None, None, None, None, None, None


_align.register_autograd(_grad_of_align, setup_context=_keep_for_align)


@torch.library.custom_op(
    "resdet::roi_pool",
    mutates_args=(),
    schema="(Tensor[] features, Tensor rois, Tensor levels, float[] scales, int resolution) -> (Tensor, Tensor)",
)
def _pool(
    features: list[Tensor], rois: Tensor, levels: Tensor, scales: list[float], resolution: int
) -> tuple[Tensor, Tensor]:
    """Also returns the cell of each maximum within its level's map."""
    cells = []

    def of_level(level: int, regions: Any) -> Tensor:
        bins = (scales[level], resolution, resolution)
        pooled, cell = KERNELS.roi_pool(features[level].float(), rois[regions], *bins)
        cells.append(cell)
        return pooled

    pooled = _by_level(levels, len(features), of_level).to(features[0])
    return pooled, _by_level(levels, len(features), lambda level, _: cells[level])


@_pool.register_fake
def _(
    features: list[Tensor], rois: Tensor, levels: Tensor, scales: list[float], resolution: int
) -> tuple[Tensor, Tensor]:
    pooled = features[0].new_empty((rois.shape[0], features[0].shape[1], resolution, resolution))
    return pooled, pooled.new_empty(pooled.shape, dtype=torch.int32)


@torch.library.custom_op(
    "resdet::roi_pool_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor cells, Tensor[] features, Tensor rois, Tensor levels, float[] scales) -> Tensor[]",
)
def _pool_backward(
    grad: Tensor, cells: Tensor, features: list[Tensor], rois: Tensor, levels: Tensor, scales: list[float]
) -> list[Tensor]:
    gradients = []
    for level, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        regions = _members(levels, len(features), level)
        bins = (scale, *grad.shape[2:], *feature.shape)
        gradient = KERNELS._roi_pool_backward(grad[regions].float(), rois[regions], cells[regions], *bins)
        gradients.append(gradient.to(feature))
    return gradients


@_pool_backward.register_fake
def _(
    grad: Tensor, cells: Tensor, features: list[Tensor], rois: Tensor, levels: Tensor, scales: list[float]
) -> list[Tensor]:
    return [torch.empty_like(feature, memory_format=torch.contiguous_format) for feature in features]


def _keep_for_pool(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    features, rois, levels, ctx.scales, _ = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1], rois, levels, *features)


def _grad_of_pool(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Any, ...]:
    cells, rois, levels, *features = ctx.saved_tensors
    return _pool_backward(grad, cells, features, rois, levels, ctx.scales), None, None, None, None


_pool.register_autograd(_grad_of_pool, setup_context=_keep_for_pool)
