"""RoIAlign over all levels of a pyramid in one kernel, and its gradient in another.

One program makes one bin of one region: it adds up the cells that `ops.roi_align.cells_of` names, in float32. The
gradient adds to the same cells in float32 in any order, so that its last bits differ from run to run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int64
from torch import Tensor

from resdet.ops.roi_align import cells_of

WARPS = 4
MOST_CHANNELS = 256  # of a cell that a program holds at a time


def roi_align(
    features: Sequence[Float[Tensor, "N C _h _w"]],
    strides: Sequence[int | float],
    boxes: Float[Tensor, "N R 4"],
    levels: Int64[Tensor, "N R"],
    *,
    resolution: int,
    sampling_ratio: int = 2,
    aligned: bool = True,
) -> Float[Tensor, "N*R C {resolution} {resolution}"]:
    """`ops.roi_align.roi_align` with a fixed number of samples; `sampling_ratio` is at least 1."""
    cells = cells_of(features, strides, boxes, levels, resolution, sampling_ratio, aligned=aligned)
    pooled = _sum_of_cells(
        cells.table,
        cells.start.flatten(),
        cells.width.flatten(),
        cells.y.flatten(0, 1),
        cells.y_weight.flatten(0, 1),
        cells.x.flatten(0, 1),
        cells.x_weight.flatten(0, 1),
    )
    return pooled.permute(0, 3, 1, 2)


@torch.library.custom_op(
    "resdet::sum_of_cells",
    mutates_args=(),
    schema="(Tensor table, Tensor start, Tensor width, Tensor y, Tensor y_weight, Tensor x, Tensor x_weight) -> Tensor",
)
def _sum_of_cells(
    table: Tensor, start: Tensor, width: Tensor, y: Tensor, y_weight: Tensor, x: Tensor, x_weight: Tensor
) -> Tensor:
    """The weighted sums, (regions, bins, bins, C)."""
    pooled = table.new_empty((y.shape[0], y.shape[1], y.shape[1], table.shape[1]))
    _launch(_forward, table, pooled, start, width, y, y_weight, x, x_weight)
    return pooled


@_sum_of_cells.register_fake
def _(table: Tensor, start: Tensor, width: Tensor, y: Tensor, y_weight: Tensor, x: Tensor, x_weight: Tensor) -> Tensor:
    return table.new_empty((y.shape[0], y.shape[1], y.shape[1], table.shape[1]))


@torch.library.custom_op(
    "resdet::sum_of_cells_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor start, Tensor width, Tensor y, Tensor y_weight, Tensor x, Tensor x_weight,"
    " SymInt rows) -> Tensor",
)
def _backward_of_sum(
    grad: Tensor, start: Tensor, width: Tensor, y: Tensor, y_weight: Tensor, x: Tensor, x_weight: Tensor, rows: int
) -> Tensor:
    """The gradient of the table, (rows, C), in float32."""
    table = torch.zeros((rows, grad.shape[3]), dtype=torch.float32, device=grad.device)
    _launch(_backward, table, grad.contiguous(), start, width, y, y_weight, x, x_weight)
    return table


@_backward_of_sum.register_fake
def _(
    grad: Tensor, start: Tensor, width: Tensor, y: Tensor, y_weight: Tensor, x: Tensor, x_weight: Tensor, rows: int
) -> Tensor:
    return grad.new_empty((rows, grad.shape[3]), dtype=torch.float32)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    table, *cells = inputs
    ctx.rows, ctx.dtype = table.shape[0], table.dtype
    ctx.save_for_backward(*cells)


def _grad(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return _backward_of_sum(grad, *ctx.saved_tensors, ctx.rows).to(ctx.dtype), *[None] * 6


_sum_of_cells.register_autograd(_grad, setup_context=_keep)


def _launch(kernel: Any, table: Tensor, regions: Tensor, start: Tensor, width: Tensor, *along: Tensor) -> None:
    """One program a bin. `along` are y, its weights, x, and its weights, (regions, bins, taps)."""
    count, bins, taps = along[0].shape
    channels = table.shape[1]
    block = min(MOST_CHANNELS, triton.next_power_of_2(channels))
    if count == 0:
        return
    kernel[count * bins * bins, triton.cdiv(channels, block)](
        table,
        regions,
        start.contiguous(),
        width.contiguous(),
        *(values.contiguous() for values in along),
        channels,
        BINS=bins,
        TAPS=taps,
        BLOCK=block,
        num_warps=WARPS,
    )


@triton.jit
@no_type_check
def _forward(
    table_ptr, out_ptr, start_ptr, width_ptr, y_ptr, y_weight_ptr, x_ptr, x_weight_ptr, channels,
    BINS: tl.constexpr, TAPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The sum over the taps of a bin, of BLOCK channels."""
    bin = tl.program_id(0).to(tl.int64)
    region, row, column = bin // (BINS * BINS), bin // BINS % BINS, bin % BINS
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    start, width = tl.load(start_ptr + region), tl.load(width_ptr + region)
    rows, columns = (region * BINS + row) * TAPS, (region * BINS + column) * TAPS
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for i in tl.static_range(TAPS):
        line = start + tl.load(y_ptr + rows + i) * width
        line_weight = tl.load(y_weight_ptr + rows + i)
        for j in tl.static_range(TAPS):
            cell = line + tl.load(x_ptr + columns + j)
            weight = line_weight * tl.load(x_weight_ptr + columns + j)
            value = tl.load(table_ptr + cell * channels + channel, mask=channel < channels, other=0.0)
            total += weight.to(tl.float32) * value.to(tl.float32)
    tl.store(out_ptr + bin * channels + channel, total.to(out_ptr.dtype.element_ty), mask=channel < channels)


@triton.jit
@no_type_check
def _backward(
    table_ptr, grad_ptr, start_ptr, width_ptr, y_ptr, y_weight_ptr, x_ptr, x_weight_ptr, channels,
    BINS: tl.constexpr, TAPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Adds the gradient of a bin to the cells of its taps."""
    bin = tl.program_id(0).to(tl.int64)
    region, row, column = bin // (BINS * BINS), bin // BINS % BINS, bin % BINS
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    start, width = tl.load(start_ptr + region), tl.load(width_ptr + region)
    rows, columns = (region * BINS + row) * TAPS, (region * BINS + column) * TAPS
    grad = tl.load(grad_ptr + bin * channels + channel, mask=channel < channels, other=0.0).to(tl.float32)
    for i in tl.static_range(TAPS):
        line = start + tl.load(y_ptr + rows + i) * width
        line_weight = tl.load(y_weight_ptr + rows + i)
        for j in tl.static_range(TAPS):
            cell = line + tl.load(x_ptr + columns + j)
            weight = (line_weight * tl.load(x_weight_ptr + columns + j)).to(tl.float32)
            if weight != 0.0:
                place = table_ptr + cell * channels + channel
                tl.atomic_add(place, weight * grad, mask=channel < channels, sem="relaxed")
