"""Residual networks with pre-activation (He et al. 2016, 1603.05027): norm and ReLU come before each convolution."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from resdet.models.backbones.base import Backbone, init_he, scaled
from resdet.models.backbones.norms import NORMS, conv_norm
from resdet.models.backbones.resnet import conv, stochastic_depth


class PreActivationBlock(nn.Module, ABC):
    """x + F(relu(norm(x))), with no operation on the shortcut (1603.05027, fig. 1b).

    The first block of a stage receives an x that is already activated, because its shortcut uses it too (appendix):
    `activates` is False, and the block has no bn1.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int, norm: str, drop: float, activates: bool
    ) -> None:
        super().__init__()
        self.bn1 = NORMS[norm](in_channels) if activates else None
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
        self.drop = drop

    @abstractmethod
    def residual(self, x: Float[Tensor, "N _ H W"]) -> Float[Tensor, "N _ _ _"]:
        """F of the activated x."""

    def forward(self, x: Float[Tensor, "N _ H W"]) -> Float[Tensor, "N _ _ _"]:
        identity = x if self.downsample is None else self.downsample(x)
        residual = self.residual(x if self.bn1 is None else self.bn1(x).relu())
        if self.training and self.drop:
            residual = stochastic_depth(residual, self.drop)
        return residual + identity


class PreActivationBasicBlock(PreActivationBlock):
    """Two 3x3 layers."""

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int, norm: str, drop: float, activates: bool
    ) -> None:
        super().__init__(in_channels, out_channels, stride=stride, norm=norm, drop=drop, activates=activates)
        self.conv1 = conv(in_channels, out_channels, 3, stride=stride, norm=norm)
        self.bn2 = NORMS[norm](out_channels)
        self.conv2 = conv(out_channels, out_channels, 3, norm=norm)

    def residual(self, x: Float[Tensor, "N _ H W"]) -> Float[Tensor, "N _ _ _"]:
        return self.conv2(conv_norm(x, self.conv1, self.bn2).relu_())


class PreActivationBottleneck(PreActivationBlock):
    """1x1 to a quarter of out_channels, 3x3, 1x1 back."""

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int, norm: str, drop: float, activates: bool
    ) -> None:
        super().__init__(in_channels, out_channels, stride=stride, norm=norm, drop=drop, activates=activates)
        width = out_channels // 4
        self.conv1 = conv(in_channels, width, 1, norm=norm)
        self.bn2 = NORMS[norm](width)
        self.conv2 = conv(width, width, 3, stride=stride, norm=norm)
        self.bn3 = NORMS[norm](width)
        self.conv3 = conv(width, out_channels, 1, norm=norm)

    def residual(self, x: Float[Tensor, "N _ H W"]) -> Float[Tensor, "N _ _ _"]:
        x = conv_norm(x, self.conv1, self.bn2).relu_()
        return self.conv3(conv_norm(x, self.conv2, self.bn3).relu_())


class PreActivationResNet(Backbone):
    """A stem, then stages; the norm and ReLU with which the next stage begins run at the end of each stage.

    So each level is the input of the next stage, and C5 has the additional activation after the last block (appendix).
    """

    def __init__(
        self,
        block: type[PreActivationBasicBlock | PreActivationBottleneck],
        depths: Sequence[int],
        *,
        c2_channels: int = 256,
        width: float = 1.0,
        norm: str = "frozen_bn",
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__()
        stem_channels, c2_channels = scaled(64, width), scaled(c2_channels, width)
        self.conv1 = conv(3, stem_channels, 7, stride=2, norm=norm)
        self.bn1 = NORMS[norm](stem_channels)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.channels = tuple(c2_channels * 2**level for level in range(4))
        self.strides = (4, 8, 16, 32)

        rates = iter(stochastic_depth * (index + 1) / sum(depths) for index in range(sum(depths)))
        layers, in_channels = [], stem_channels
        for depth, out_channels in zip(depths, self.channels, strict=True):
            stride = 2 if layers else 1
            blocks = [block(in_channels, out_channels, stride=stride, norm=norm, drop=next(rates), activates=False)]
            for _ in range(depth - 1):
                blocks.append(block(out_channels, out_channels, stride=1, norm=norm, drop=next(rates), activates=True))
            layers.append(nn.Sequential(*blocks, NORMS[norm](out_channels), nn.ReLU()))
            in_channels = out_channels
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        init_he(self)

    def forward(self, images: Float[Tensor, "N 3 H W"]) -> list[Float[Tensor, "N _ _ _"]]:
        x = self.maxpool(conv_norm(images, self.conv1, self.bn1).relu_())
        c2 = self.layer1(x)
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        return [c2, c3, c4, self.layer4(c4)]

    def stages(self) -> list[tuple[str, nn.Module]]:
        stem = nn.ModuleList([self.conv1, self.bn1])
        names = ("layer1", "layer2", "layer3", "layer4")
        return [("stem", stem), *((name, getattr(self, name)) for name in names)]
