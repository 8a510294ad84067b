"""Feature Pyramid Network (Lin et al. 2017, figure 3), and the same with an additional bottom-up path (Liu et al.
2018).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]


class SubsampledLevel(nn.Module):
    """P6: every second cell of P5 (Lin et al. 2017, footnote 3)."""

    levels = 1

    def forward(self, last: Float[Tensor, "N C h w"]) -> list[Float[Tensor, "N C _h _w"]]:
        return [F.max_pool2d(last, kernel_size=1, stride=2)]


class ConvLevels(nn.Module):
    """P6 and P7, each by a 3x3 convolution of stride 2 (Lin et al. 2017, "Focal Loss", section 4; here from P5)."""

    levels = 2

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.p6 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        for conv in (self.p6, self.p7):
            nn.init.kaiming_uniform_(conv.weight, a=1)
            nn.init.zeros_(conv.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, last: Float[Tensor, "N C h w"]) -> list[Float[Tensor, "N C _h _w"]]:
        p6 = self.p6(last)
        return [p6, self.p7(F.relu(p6))]


class FeaturePyramidNetwork(nn.Module):
    """Top-down pathway with lateral connections, and coarser levels made from the last.

    Maps can have any size: each is upsampled to the size of the lateral map, not by a fixed factor.

    Args:
        in_channels: channels of C2..C5.
        strides: pixels a cell of C2..C5.
        channels: channels of every output level.
        extra: makes the levels behind P5.
        norm: makes a normalization layer for a number of channels; None: convolutions with a bias.

    The attribute `strides` belongs to P2, P3, ..., in the order of the output.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        channels: int,
        *,
        extra: SubsampledLevel | ConvLevels,
        norm: Norm | None = None,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.strides = (*strides, *(strides[-1] * 2 ** (level + 1) for level in range(extra.levels)))
        self.inner_blocks = nn.ModuleList(_conv(count, channels, 1, norm) for count in in_channels)
        self.layer_blocks = nn.ModuleList(_conv(channels, channels, 3, norm) for _ in in_channels)
        self.extra_blocks = extra

    def forward(self, features: Sequence[Float[Tensor, "N _c _h _w"]]) -> list[Float[Tensor, "N C _h _w"]]:
        pyramid = self.pyramid(features)
        return [*pyramid, *self.extra_blocks(pyramid[-1])]

    def pyramid(self, features: Sequence[Float[Tensor, "N _c _h _w"]]) -> list[Float[Tensor, "N C _h _w"]]:
        """P2..P5."""
        laterals = [inner(feature) for inner, feature in zip(self.inner_blocks, features, strict=True)]
        merged = [laterals[-1]]
        for lateral in reversed(laterals[:-1]):
            merged.append(lateral + F.interpolate(merged[-1], size=lateral.shape[-2:], mode="nearest"))
        return [layer(level) for layer, level in zip(self.layer_blocks, reversed(merged), strict=True)]


class PathAggregationNetwork(FeaturePyramidNetwork):
    """An FPN with an additional path from fine to coarse levels (Liu et al. 2018, section 3.1).

    N2 is P2; each coarser level is P plus the finer N at half its size, through a 3x3 convolution.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        channels: int,
        *,
        extra: SubsampledLevel | ConvLevels,
        norm: Norm | None = None,
    ) -> None:
        super().__init__(in_channels, strides, channels, extra=extra, norm=norm)
        self.downsample_blocks = nn.ModuleList(_conv(channels, channels, 3, norm, stride=2) for _ in strides[1:])
        self.fusion_blocks = nn.ModuleList(_conv(channels, channels, 3, norm) for _ in strides[1:])

    def pyramid(self, features: Sequence[Float[Tensor, "N _c _h _w"]]) -> list[Float[Tensor, "N C _h _w"]]:
        """N2..N5."""
        finest, *coarser = super().pyramid(features)
        joined = [finest]
        for level, downsample, fusion in zip(coarser, self.downsample_blocks, self.fusion_blocks, strict=True):
            height, width = level.shape[-2:]
            finer = F.relu(downsample(joined[-1]))[..., :height, :width]  # some backbones round odd sizes down
            joined.append(F.relu(fusion(finer + level)))
        return joined


class SingleLevel(nn.Module):
    """One map of the backbone, unchanged (Ren et al. 2015): for C4 and DC5 detectors."""

    def __init__(self, level: int, *, channels: int, stride: int) -> None:
        super().__init__()
        self.level = level
        self.channels = channels
        self.strides = (stride,)

    def forward(self, features: Sequence[Float[Tensor, "N _c _h _w"]]) -> list[Float[Tensor, "N C h w"]]:
        return [features[self.level]]


def _conv(in_channels: int, channels: int, kernel: int, norm: Norm | None, *, stride: int = 1) -> nn.Sequential:
    """A convolution with Detectron's initialization of the pyramid."""
    conv = nn.Conv2d(in_channels, channels, kernel, stride=stride, padding=kernel // 2, bias=norm is None)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    if norm is None:
        nn.init.zeros_(conv.bias)  # pyright: ignore[reportArgumentType]  # there is a bias without a norm
        return nn.Sequential(conv)
    return nn.Sequential(conv, norm(channels))
