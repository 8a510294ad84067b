"""Feature Pyramid Network (Lin et al. 2017, figure 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class FeaturePyramidNetwork(nn.Module):
    """Top-down pathway with lateral connections, and one coarser level by subsampling the last.

    Maps of any size fit: each is upsampled to the size of its lateral, never by a fixed factor.

    Args:
        in_channels: channels of C2..C5.
        strides: pixels a cell of C2..C5.
        channels: channels of every output level.
        norm: makes a normalisation layer for a number of channels; None: convolutions with a bias.

    `strides` of the result belong to P2..P6, the order of its output.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        channels: int,
        norm: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.strides = (*strides, strides[-1] * 2)
        self.inner_blocks = nn.ModuleList(_conv(count, channels, 1, norm) for count in in_channels)
        self.layer_blocks = nn.ModuleList(_conv(channels, channels, 3, norm) for _ in in_channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)  # Detectron's initialisation of the pyramid

    def forward(self, features: Sequence[Float[Tensor, "N _c _h _w"]]) -> list[Float[Tensor, "N C _h _w"]]:
        laterals = [inner(feature) for inner, feature in zip(self.inner_blocks, features, strict=True)]
        merged = [laterals[-1]]
        for lateral in reversed(laterals[:-1]):
            merged.append(lateral + F.interpolate(merged[-1], size=lateral.shape[-2:], mode="nearest"))
        pyramid = [layer(level) for layer, level in zip(self.layer_blocks, reversed(merged), strict=True)]
        return [*pyramid, F.max_pool2d(pyramid[-1], kernel_size=1, stride=2)]


def _conv(in_channels: int, channels: int, kernel: int, norm: Callable[[int], nn.Module] | None) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2, bias=norm is None)
    if norm is None:
        nn.init.zeros_(conv.bias)  # pyright: ignore[reportArgumentType]  # there is a bias without a norm
        return nn.Sequential(conv)
    return nn.Sequential(conv, norm(channels))
