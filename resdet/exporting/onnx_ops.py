"""ONNX forms of resdet's custom operators, in operators that ONNX Runtime and OpenVINO have.

They are called by torch's exporter, which records the calls of `op` (ONNX opset 18).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnxscript import opset18  # pyright: ignore[reportMissingImports]

from resdet.ops import nms, roi_kernels  # noqa: F401  # registers the operators

op: Any = opset18  # its calls are recorded, whatever their types say
LOWEST = float(torch.finfo(torch.float32).min)
FLOAT, INT64 = 1, 7  # ONNX's numbers of the types


def padded_nms(boxes: Any, scores: Any, groups: Any, valid: Any, iou_threshold: float, keep: int) -> Any:
    """NMS within each group: every group is a class with scores of its own, minus infinity for the boxes of others."""
    nothing = op.Constant(value_float=-math.inf)
    own = op.Where(valid, scores, nothing)
    count = op.Add(op.ReduceMax(groups, keepdims=0), op.Constant(value_int=1))
    each = op.Range(op.Constant(value_int=0), count, op.Constant(value_int=1))
    member = op.Equal(_unsqueezed(groups, 1), _unsqueezed(each, 0, 2))  # N, groups, M
    by_group = op.Where(member, _unsqueezed(own, 1), nothing)
    found = op.NonMaxSuppression(
        boxes,
        by_group,
        op.Constant(value_ints=[keep]),
        op.Constant(value_floats=[iou_threshold]),
        op.Constant(value_floats=[LOWEST]),
    )
    place = op.Gather(found, op.Constant(value_ints=[0, 2]), axis=1)  # image and box of each that remains
    remaining = op.ScatterND(op.Expand(nothing, op.Shape(scores)), place, op.GatherND(own, place))
    remaining = op.Pad(remaining, op.Constant(value_ints=[0, 0, 0, keep]), nothing)
    best, index = op.TopK(remaining, op.Constant(value_ints=[keep]), axis=1)
    return op.Where(op.Greater(best, op.Constant(value_float=LOWEST)), index, op.Constant(value_int=-1))


def roi_align(
    features: Sequence[Any],
    rois: Any,
    levels: Any,
    scales: Sequence[float],
    resolution: int,
    sampling_ratio: int,
    aligned: bool,  # noqa: FBT001  # the schema of an operator is positional
) -> Any:
    """RoIAlign of each level's regions."""
    mode = "half_pixel" if aligned else "output_half_pixel"

    def of_level(level: int, boxes: Any, image: Any) -> Any:
        return op.RoiAlign(
            op.Cast(features[level], to=FLOAT),
            boxes,
            image,
            coordinate_transformation_mode=mode,
            output_height=resolution,
            output_width=resolution,
            sampling_ratio=sampling_ratio,
            spatial_scale=scales[level],
        )

    image, boxes = _image_and_box(rois)
    return op.CastLike(_by_level(levels, len(features), boxes, image, of_level), features[0])


def roi_pool(
    features: Sequence[Any], rois: Any, levels: Any, scales: Sequence[float], resolution: int
) -> tuple[Any, Any]:
    """RoIPool of each level's regions. The places of the maxima serve training alone; zeros stand for them."""

    def of_level(level: int, regions: Any, _: Any) -> Any:
        shape = [resolution, resolution]
        return op.MaxRoiPool(
            op.Cast(features[level], to=FLOAT), regions, pooled_shape=shape, spatial_scale=scales[level]
        )

    pooled = op.CastLike(_by_level(levels, len(features), rois, levels, of_level), features[0])
    return pooled, op.Cast(op.Mul(pooled, op.CastLike(op.Constant(value_float=0.0), pooled)), to=6)


def _by_level(levels: Any, count: int, boxes: Any, image: Any, of_level: Callable[[int, Any, Any], Any]) -> Any:
    """The results of `of_level` for the regions of each level, in the order of all regions."""
    if count == 1:
        return of_level(0, boxes, image)
    members = [
        op.Squeeze(op.NonZero(op.Equal(levels, op.Constant(value_int=level))), op.Constant(value_ints=[0]))
        for level in range(count)
    ]
    parts = [of_level(level, op.Gather(boxes, own), op.Gather(image, own)) for level, own in enumerate(members)]
    order = op.Concat(*members, axis=0)
    numbers = op.Range(op.Constant(value_int=0), op.Squeeze(op.Shape(order)), op.Constant(value_int=1))
    return op.Gather(op.Concat(*parts, axis=0), op.ScatterElements(order, order, numbers, axis=0), axis=0)


def _image_and_box(rois: Any) -> tuple[Any, Any]:
    first = op.Slice(rois, op.Constant(value_ints=[0]), op.Constant(value_ints=[1]), op.Constant(value_ints=[1]))
    boxes = op.Slice(rois, op.Constant(value_ints=[1]), op.Constant(value_ints=[5]), op.Constant(value_ints=[1]))
    return op.Cast(op.Squeeze(first, op.Constant(value_ints=[1])), to=INT64), boxes


def _unsqueezed(values: Any, *axes: int) -> Any:
    return op.Unsqueeze(values, op.Constant(value_ints=list(axes)))


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.resdet.padded_nms.default: padded_nms,
    torch.ops.resdet.roi_align.default: roi_align,
    torch.ops.resdet.roi_pool.default: roi_pool,
}
