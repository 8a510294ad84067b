"""Pools the features of boxes, each from the pyramid level that fits its size (Lin et al. 2017, section 4.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from resdet.ops.roi_align import assign_levels

# RoIAlign or RoIPool with fixed options: (features, strides, boxes, levels) to regions.
Pooling = Callable[[Sequence[Tensor], Sequence[int | float], Tensor, Tensor], Tensor]

# From boxes (N, R, 4) to their regions (N * R, C, h, w).
Pool = Callable[[Tensor], Tensor]


class RoIPooler(nn.Module):
    """Pools each box from the level that fits its size; with a single level, from that level."""

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
        # for a net that has diverged: the error must be the loss that is not finite, not an index out of bounds
        boxes = boxes.nan_to_num()
        levels = assign_levels(boxes, self.finest, self.coarsest) - self.finest
        return self.pooling(features[: len(self.strides)], self.strides, boxes, levels)
