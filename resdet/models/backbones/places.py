"""Determines the positions of a backbone's cells in the image, without computing features.

A detector places its anchors by the stride alone: cell i of a map of stride s stands for the pixels from i * s to (i +
1) * s. In a net with unpadded convolutions the cells lie at other positions, and no error would report it. Here the net
runs once on the meta device, and each operation that moves cells (convolution, pooling, padding, slicing, resizing) is
traced: a step of one cell in the output is a known number of cells in the input, with a known offset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from resdet.errors import UserError
from resdet.models.backbones.base import Backbone
from resdet.text import said_by

SIZE = (416, 608)  # pixels; maps of 13 x 19 cells and their multiples, which differ from all usual numbers of channels
SLACK = 0.01  # pixels, for the rounding of numbers
# The exceptions of a net for an image of a size that it does not support.
MISFITS = (AssertionError, IndexError, RuntimeError, ValueError)

aten = torch.ops.aten


@dataclass(frozen=True)
class Rows:
    """The rows of cells of a map: their number, the distance of one to the next, and the middle of the first.

    The unit is pixels of the image; the middle of the first pixel is 0.5. If added branches have different positions,
    the middle of the first row lies between `low` and `high`.
    """

    count: int
    stride: float
    low: float
    high: float

    def moved(self, by: float, count: int, stride: float) -> Rows:
        """The rows of another map, whose first row lies `by` pixels further down."""
        return Rows(count, stride, self.low + by, self.high + by)

    def seen_as(self, count: int) -> Rows:
        """The same map with regrouped cells: blocks of r rows as one (as in patch merging), or the reverse."""
        if count and self.count > count and self.count % count == 0:
            stride = self.stride * (self.count // count)
        elif self.count and count % self.count == 0:
            stride = self.stride / (count // self.count)
        else:
            return replace(self, count=count)
        return self.moved((stride - self.stride) / 2, count, stride)

    def resized(self, count: int) -> Rows:
        """The rows after interpolation to another number of rows over the same part of the image."""
        stride = self.stride * self.count / count
        return self.moved((stride - self.stride) / 2, count, stride)

    def beside(self, other: Rows) -> Rows:
        """The rows of an operation on two inputs: the cells of the finer one, from the first to the last position."""
        if self.stride != other.stride:
            return self if self.stride < other.stride else other
        return replace(self, low=min(self.low, other.low), high=max(self.high, other.high))


class _Follow(TorchDispatchMode):
    """Traces the rows of every tensor that is computed from the image."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        # the reference keeps the id of the tensor from being used again
        self.known: dict[int, tuple[Tensor, Rows]] = {}
        self.set(images, Rows(images.shape[2], 1.0, 0.5, 0.5))

    def set(self, tensor: Tensor, rows: Rows) -> None:
        self.known[id(tensor)] = (tensor, rows)

    def of(self, tensor: Tensor) -> Rows | None:
        found = self.known.get(id(tensor))
        return None if found is None else found[1]

    def __torch_dispatch__(
        self, func: Any, types: Iterable[Any], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = [rows for leaf in tree_leaves((args, kwargs)) if (rows := self._tracked(leaf)) is not None]
        if inputs:
            rows = inputs[0]
            for other in inputs[1:]:
                rows = rows.beside(other)
            for output in tree_leaves(result):
                if isinstance(output, Tensor):
                    moves = MOVES.get(func)
                    self.set(output, rows if moves is None else moves(rows, output, *args))
        return result

    def _tracked(self, leaf: object) -> Rows | None:
        return self.of(leaf) if isinstance(leaf, Tensor) else None


def _convolution(rows: Rows, output: Tensor, image: Tensor, weight: Tensor, _: Any, *options: Any) -> Rows:
    if image.ndim != 4:
        return rows
    stride, padding, dilation, transposed = (
        option if isinstance(option, bool) else option[0] for option in options[:4]
    )
    rows = rows.seen_as(image.shape[2])
    reach = dilation * (weight.shape[2] - 1) / 2 - padding
    if transposed:
        finer = rows.stride / stride
        return rows.moved(-reach * finer, output.shape[2], finer)
    return rows.moved(reach * rows.stride, output.shape[2], rows.stride * stride)


def _pooling(rows: Rows, output: Tensor, image: Tensor, kernel: Sequence[int], *options: Any) -> Rows:
    if image.ndim != 4:
        return rows
    stride = options[0][0] if options and options[0] else kernel[0]
    padding = options[1][0] if len(options) > 1 else 0
    dilation = options[2][0] if len(options) > 2 and isinstance(options[2], Sequence) else 1
    rows = rows.seen_as(image.shape[2])
    reach = dilation * (kernel[0] - 1) / 2 - padding
    return rows.moved(reach * rows.stride, output.shape[2], rows.stride * stride)


def _padding(rows: Rows, output: Tensor, image: Tensor, pad: Sequence[int], *_: Any) -> Rows:
    axis = _axis_of_rows(rows, image)
    if axis is None:
        return rows
    place = 2 * (image.ndim - 1 - axis)  # pairs for each axis, the last axis first
    above = pad[place] if len(pad) > place else 0
    return rows.moved(-above * rows.stride, output.shape[axis], rows.stride)


def _slice(rows: Rows, output: Tensor, image: Tensor, axis: int = 0, start: int | None = None, *rest: Any) -> Rows:
    if axis % image.ndim != _axis_of_rows(rows, image):
        return rows
    step = rest[1] if len(rest) > 1 else 1
    first = start or 0
    first += image.shape[axis] if first < 0 else 0
    return rows.moved(first * rows.stride, output.shape[axis], rows.stride * step)


def _interpolation(rows: Rows, output: Tensor, image: Tensor, *_: Any) -> Rows:
    return rows.seen_as(image.shape[2]).resized(output.shape[2]) if image.ndim == 4 else rows


def _axis_of_rows(rows: Rows, image: Tensor) -> int | None:
    """2 for (N, C, H, W) and 1 for (N, H, W, C); None if the tensor is not a map."""
    if image.ndim != 4:
        return None
    return next((axis for axis in (2, 1) if _is_map(image.shape[axis], image.shape[axis + 1], rows)), None)


def _is_map(height: int, width: int, rows: Rows) -> bool:
    """Whether the shape is about 13 to 19; only maps of the test image have this ratio."""
    return height == rows.count and abs(width * SIZE[0] - height * SIZE[1]) <= 8 * SIZE[1]


MOVES: dict[Any, Callable[..., Rows]] = {
    aten.convolution.default: _convolution,
    aten.max_pool2d_with_indices.default: _pooling,
    aten.avg_pool2d.default: _pooling,
    aten.constant_pad_nd.default: _padding,
    aten.reflection_pad2d.default: _padding,
    aten.replication_pad2d.default: _padding,
    aten.slice.Tensor: _slice,
    aten.upsample_nearest2d.default: _interpolation,
    aten.upsample_nearest2d.vec: _interpolation,
    aten.upsample_bilinear2d.default: _interpolation,
    aten.upsample_bilinear2d.vec: _interpolation,
    aten.upsample_bicubic2d.default: _interpolation,
    aten.upsample_bicubic2d.vec: _interpolation,
}


def places(backbone: Backbone, size: tuple[int, int] = SIZE) -> list[tuple[tuple[int, int], Rows]]:
    """The (height, width) of each map of an image of `size`, and the positions of its rows."""
    training = backbone.training
    tensors = {**dict(backbone.named_parameters()), **dict(backbone.named_buffers())}
    state = {name: value.detach().to("meta") for name, value in tensors.items()}
    try:
        with torch.no_grad(), torch.device("meta"):
            images = torch.empty(1, 3, *size)
            with _Follow(images) as follow:
                maps = functional_call(backbone.eval(), state, (images,))
    finally:
        _ = backbone.train(training)
    found = []
    for level in maps:
        height, width = level.shape[2:]
        rows = follow.of(level)
        assert rows is not None, "a map that does not depend on the image"
        found.append(((height, width), rows.seen_as(height)))
    return found


def check_maps(backbone: Backbone, name: str) -> None:
    """Raises UserError, with the reason, for a backbone whose maps do not fit the positions of the anchors.

    A map of stride s has ceil(H / s) by ceil(W / s) cells, and the middle of the receptive field of cell i lies in its
    own part of the image, from i * s to (i + 1) * s (ResNets: at its beginning; ConvNeXt: in its middle; TensorFlow: at
    its end). If branches are added or concatenated (as in HRNet), one of them must fulfil this. Each design is checked
    once per process.
    """
    design = (name, type(backbone), backbone.strides, backbone.channels)
    if design not in _CHECKED:
        _CHECKED[design] = misplaced(backbone)
    if reason := _CHECKED[design]:
        raise UserError(f"backbone {name!r}: {reason}; choose another net, such as resnet50 or timm/convnext_atto")


_CHECKED: dict[tuple[str, type[Backbone], tuple[int, ...], tuple[int, ...]], str | None] = {}


def misplaced(backbone: Backbone) -> str | None:
    """The reason why anchors do not fit the maps of a backbone; None if they fit."""
    height, width = SIZE
    try:
        found = places(backbone)
    except MISFITS as error:
        said = f": {said_by(error, 80)!a}" if str(error) else ""
        return f"it does not take images of {height} x {width} pixels ({type(error).__name__}{said})"
    for stride, (size, rows) in zip(backbone.strides, found, strict=True):
        wanted = (-(-height // stride), -(-width // stride))
        if size != wanted:
            return (
                f"its map of stride {stride} has {size[0]} x {size[1]} cells for an image of {height} x {width} pixels,"
                f" not {wanted[0]} x {wanted[1]}, because not all of its convolutions are padded"
            )
        if rows.stride != stride or rows.high < -SLACK or rows.low > stride + SLACK:
            return (
                f"cell i of its map of stride {stride} sees the image around pixel {rows.low:g} + {rows.stride:g} i, "
                f"outside the {stride} pixels that it stands for"
            )
    return None
