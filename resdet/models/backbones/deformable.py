"""Deformable convolution: the input determines the sampling position of every tap (Dai et al. 2017; Zhu et
al. 2018).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import deform_conv2d


class DeformableConv2d(nn.Conv2d):
    """A 3x3 convolution with an offset and a modulation for each tap, predicted from the input (1811.11168, eq. 1).

    The modulation is 2 sigmoid(m), so with the initial predictor, which is zero, this is the ordinary convolution:
    classification weights give the same features.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
        )
        self.taps = kernel_size**2
        self.predictor = nn.Conv2d(
            in_channels, 3 * self.taps, kernel_size, stride=stride, padding=padding, dilation=dilation
        )
        self.start_as_conv()

    def start_as_conv(self) -> None:
        """Sets the predictor to zero: no offsets, and a modulation of one."""
        _ = nn.init.zeros_(self.predictor.weight)
        assert self.predictor.bias is not None
        _ = nn.init.zeros_(self.predictor.bias)

    def _conv_forward(
        self, input: Float[Tensor, "N _ _ _"], weight: Float[Tensor, "_ _ _ _"], bias: Float[Tensor, " _"] | None
    ) -> Float[Tensor, "N _ _ _"]:
        input = input.to(weight.dtype)
        with _full_precision(input.device.type):  # coordinates need more than the 8 bits of bfloat16
            offset, modulation = self.predictor(input).split([2 * self.taps, self.taps], dim=1)
            stride, padding, dilation = self.stride, self.padding, self.dilation
            mask = 2 * torch.sigmoid(modulation)
            return deform_conv2d(input, offset, weight, bias, stride, padding, dilation, mask)  # pyright: ignore[reportArgumentType]


def _full_precision(device: str) -> AbstractContextManager[object]:
    """Turns autocast off on devices that support it (the meta device, used to count costs, does not)."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
