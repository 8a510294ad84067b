"""Features of boxes, from the level of a pyramid that fits the size of each (Lin et al. 2017, section 4.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from resdet.ops.roi_align import assign_levels

# RoIAlign or RoIPool with its options filled in: (features, strides, boxes, levels) to regions.
Pooling = Callable[[Sequence[Tensor], Sequence[int | float], Tensor, Tensor], Tensor]

# Boxes (N, R, 4) to their regions (N * R, C, h, w).
Pool = Callable[[Tensor], Tensor]


class RoIPooler(nn.Module):
    """Each box is pooled from the level that fits its size (of one level: from that)."""

    def __init__(self, strides: Sequence[int], pooling: Pooling) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.pooling = pooling
        self.finest = strides[0].bit_length() - 1
        self.coarsest = strides[-1].bit_length() - 1

    def forward(
        self, features: Sequence[Float[Tensor, "N C _h _w"]], boxes: Float[Tensor, "N R 4"]
    ) -> Float[Tensor, "N*R C h w"]:
        """`features` may have coarser levels than the pooler uses (P6 serves the RPN alone)."""
        boxes = boxes.nan_to_num()  # of a net that has diverged: the loss shall say so, not an index out of bounds
        levels = assign_levels(boxes, self.finest, self.coarsest) - self.finest
        return self.pooling(features[: len(self.strides)], self.strides, boxes, levels)
