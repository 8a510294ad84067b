"""Residual networks (He et al. 2015, 1512.03385) and their relatives: ResNeXt, Wide, plain, CIFAR, dilated, deformable.

Parameters have torchvision's names, so its state dicts load without changes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from functools import partial
from typing import Literal, Protocol, runtime_checkable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from resdet.errors import UserError
from resdet.models.backbones.base import Backbone, init_he, scaled
from resdet.models.backbones.deformable import DeformableConv2d
from resdet.models.backbones.norms import NORMS, conv_norm

Shortcut = Literal["A", "B", "C"]


def conv(
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    norm: str,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    kind: type[nn.Conv2d] = nn.Conv2d,
) -> nn.Conv2d:
    """A convolution that keeps the size at stride 1; it has a bias only if no norm follows."""
    return kind(
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        padding=dilation * (kernel // 2),
        dilation=dilation,
        groups=groups,
        bias=norm == "none",
    )


class Projection(nn.Sequential):
    """The 1x1 convolution W_s of He et al. 2015, eq. 2, with its norm."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, norm: str) -> None:
        super().__init__(conv(in_channels, out_channels, 1, stride=stride, norm=norm), NORMS[norm](out_channels))

    def forward(self, input: Float[Tensor, "N _ H W"]) -> Float[Tensor, "N _ _ _"]:
        projection, norm = self
        assert isinstance(projection, nn.Conv2d)
        return conv_norm(input, projection, norm)


class ZeroPadding(nn.Module):
    """A shortcut without parameters: every stride-th pixel, and zeros for the additional channels."""

    def __init__(self, new_channels: int, *, stride: int) -> None:
        super().__init__()
        self.new_channels = new_channels
        self.stride = stride

    def forward(self, x: Float[Tensor, "N _ H W"]) -> Float[Tensor, "N _ _ _"]:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


def shortcut(option: Shortcut, in_channels: int, out_channels: int, *, stride: int, norm: str) -> nn.Module | None:
    """The shortcut of a block (He et al. 2015, section 4.1); None is the identity.

    Where the shape changes, A pads with zeros and B projects; C projects everywhere.
    """
    changes = stride != 1 or in_channels != out_channels
    if option == "C" or (changes and option == "B"):
        return Projection(in_channels, out_channels, stride=stride, norm=norm)
    return ZeroPadding(out_channels - in_channels, stride=stride) if changes else None


class ResidualBlock(nn.Module, ABC):
    """relu(F(x) + x), He et al. 2015, eq. 1; or relu(F(x) + W_s x), eq. 2.

    With `drop` > 0, F is left out in training for that fraction of the images (stochastic depth, Huang et al. 2016).
    """

    def __init__(self, downsample: nn.Module | None, drop: float) -> None:
        super().__init__()
        self.downsample = downsample
        self.drop = drop

    @abstractmethod
    def residual(self, x: Float[Tensor, "N _ H W"]) -> Float[Tensor, "N _ _ _"]:
        """F(x)."""

    @property
    @abstractmethod
    def last_norm(self) -> nn.Module:
        """The norm at the end of F."""

    def forward(self, x: Float[Tensor, "N _ H W"]) -> Float[Tensor, "N _ _ _"]:
        identity = x if self.downsample is None else self.downsample(x)
        residual = self.residual(x)
        if self.training and self.drop:
            residual = stochastic_depth(residual, self.drop)
        return residual.add_(identity).relu_()


def stochastic_depth(residual: Float[Tensor, "N C H W"], drop: float) -> Float[Tensor, "N C H W"]:
    """Sets x to zero for a fraction `drop` of the images, and scales the others so that the mean does not change."""
    kept = residual.new_empty(len(residual), 1, 1, 1).bernoulli_(1 - drop)
    return residual * kept / ((1 - drop) or 1.0)  # with a drop of 1 no image is kept, so the scale would be infinite


def start_as_shortcuts(net: nn.Module) -> None:
    """Sets the last norm of every F to zero."""
    blocks = [module for module in net.modules() if isinstance(module, ResidualBlock)]
    weights = [getattr(block.last_norm, "weight", None) for block in blocks]
    for weight in weights:
        if not isinstance(weight, nn.Parameter):
            raise UserError("zero_init is for norms that are trained (bn, sync_bn, gn); others would stay at zero")
        _ = nn.init.zeros_(weight)
    if not blocks:
        raise UserError("zero_init starts a block as its shortcut, and a plain net has none; leave it out")


class BasicBlock(ResidualBlock):
    """Two 3x3 layers."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        dilation: int,
        norm: str,
        drop: float,
        kind: type[nn.Conv2d] = nn.Conv2d,
        option: Shortcut = "B",
    ) -> None:
        super().__init__(shortcut(option, in_channels, out_channels, stride=stride, norm=norm), drop)
        self.conv1 = conv(in_channels, out_channels, 3, stride=stride, dilation=dilation, norm=norm, kind=kind)
        self.bn1 = NORMS[norm](out_channels)
        self.conv2 = conv(out_channels, out_channels, 3, dilation=dilation, norm=norm, kind=kind)
        self.bn2 = NORMS[norm](out_channels)

    def residual(self, x: Float[Tensor, "N _ H W"]) -> Float[Tensor, "N _ _ _"]:
        x = conv_norm(x, self.conv1, self.bn1).relu_()
        return conv_norm(x, self.conv2, self.bn2)

    @property
    def last_norm(self) -> nn.Module:
        return self.bn2


class PlainBlock(nn.Module):
    """The two layers of a BasicBlock without its shortcut."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        dilation: int,
        norm: str,
        drop: float,
        kind: type[nn.Conv2d] = nn.Conv2d,
    ) -> None:
        super().__init__()
        if drop:
            raise UserError("stochastic_depth skips a block by its shortcut, and a plain net has none; set it to 0")
        self.conv1 = conv(in_channels, out_channels, 3, stride=stride, dilation=dilation, norm=norm, kind=kind)
        self.bn1 = NORMS[norm](out_channels)
        self.conv2 = conv(out_channels, out_channels, 3, dilation=dilation, norm=norm, kind=kind)
        self.bn2 = NORMS[norm](out_channels)

    def forward(self, x: Float[Tensor, "N _ H W"]) -> Float[Tensor, "N _ _ _"]:
        x = conv_norm(x, self.conv1, self.bn1).relu_()
        return conv_norm(x, self.conv2, self.bn2).relu_()


class Bottleneck(ResidualBlock):
    """1x1 to out_channels / reduction, 3x3 in `groups` groups, 1x1 back.

    The 3x3 has the stride (torchvision), or with `stride_in_1x1` the first 1x1 (the paper, and Caffe2's weights).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        dilation: int,
        norm: str,
        drop: float,
        kind: type[nn.Conv2d] = nn.Conv2d,
        option: Shortcut = "B",
        reduction: int = 4,
        groups: int = 1,
        stride_in_1x1: bool = False,
    ) -> None:
        super().__init__(shortcut(option, in_channels, out_channels, stride=stride, norm=norm), drop)
        width = out_channels // reduction
        stride1, stride2 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = conv(in_channels, width, 1, stride=stride1, norm=norm)
        self.bn1 = NORMS[norm](width)
        self.conv2 = conv(width, width, 3, stride=stride2, dilation=dilation, groups=groups, norm=norm, kind=kind)
        self.bn2 = NORMS[norm](width)
        self.conv3 = conv(width, out_channels, 1, norm=norm)
        self.bn3 = NORMS[norm](out_channels)

    def residual(self, x: Float[Tensor, "N _ H W"]) -> Float[Tensor, "N _ _ _"]:
        x = conv_norm(x, self.conv1, self.bn1).relu_()
        x = conv_norm(x, self.conv2, self.bn2).relu_()
        return conv_norm(x, self.conv3, self.bn3)

    @property
    def last_norm(self) -> nn.Module:
        return self.bn3


@runtime_checkable
class BlockType(Protocol):
    """The class of a block, or a partial of it with the family's own options."""

    def __call__(
        self,
        in_channels: int,
        out_channels: int,
        /,
        *,
        stride: int,
        dilation: int,
        norm: str,
        drop: float,
        kind: type[nn.Conv2d],
    ) -> nn.Module: ...


class ResNet(Backbone):
    """A stem, then stages layer1, layer2, ...; from the second on the width doubles and the size halves.

    Args:
        block: makes one block.
        depths: blocks per stage.
        stem_channels: 64; 16 on CIFAR.
        c2_channels: output channels of the first stage.
        width: factor on the channels of the stem and of all stages.
        stem: 7x7 stride 2 and a 3x3 max pool stride 2 (imagenet), or 3x3 stride 1 (cifar).
        norm: a key of NORMS.
        dilated_c5: the last stage keeps the size and dilates its 3x3 convolutions by 2 instead (DC5).
        deformable: names of the stages whose 3x3 convolutions are deformable, for instance ("layer3", "layer4").
        stochastic_depth: the fraction dropped in the last block; it grows linearly from 0 before the first.
        zero_init: the last norm of each residual starts at zero, so that a block starts as its shortcut (1706.02677).
    """

    def __init__(
        self,
        block: BlockType,
        depths: Sequence[int],
        *,
        stem_channels: int = 64,
        c2_channels: int = 256,
        width: float = 1.0,
        stem: Literal["imagenet", "cifar"] = "imagenet",
        norm: str = "frozen_bn",
        dilated_c5: bool = False,
        deformable: Collection[str] = (),
        stochastic_depth: float = 0.0,
        zero_init: bool = False,
    ) -> None:
        super().__init__()
        stem_channels, c2_channels = scaled(stem_channels, width), scaled(c2_channels, width)
        kernel, stem_stride = (7, 2) if stem == "imagenet" else (3, 1)
        self.conv1 = conv(3, stem_channels, kernel, stride=stem_stride, norm=norm)
        self.bn1 = NORMS[norm](stem_channels)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if stem == "imagenet" else nn.Identity()

        levels = range(len(depths))
        self.stage_names = tuple(f"layer{level + 1}" for level in levels)
        self.channels = tuple(c2_channels * 2**level for level in levels)
        self.strides = tuple((4 if stem == "imagenet" else 1) * 2**level for level in levels)
        if dilated_c5:
            self.strides = (*self.strides[:-1], self.strides[-2])

        rates = iter(stochastic_depth * (index + 1) / sum(depths) for index in range(sum(depths)))
        in_channels, size = stem_channels, self.strides[0]
        for level, name in enumerate(self.stage_names):
            make_block = partial(
                block,
                dilation=2 if dilated_c5 and level == levels[-1] else 1,
                norm=norm,
                kind=DeformableConv2d if name in deformable else nn.Conv2d,
            )
            out_channels, stride = self.channels[level], self.strides[level] // size
            blocks = [make_block(in_channels, out_channels, stride=stride, drop=next(rates))]
            blocks += [
                make_block(out_channels, out_channels, stride=1, drop=next(rates)) for _ in range(depths[level] - 1)
            ]
            self.add_module(name, nn.Sequential(*blocks))
            in_channels, size = out_channels, self.strides[level]

        init_he(self)
        for module in self.modules():
            if isinstance(module, DeformableConv2d):
                module.start_as_conv()
        if zero_init:
            start_as_shortcuts(self)

    def forward(self, images: Float[Tensor, "N 3 H W"]) -> list[Float[Tensor, "N _ _ _"]]:
        x = self.maxpool(conv_norm(images, self.conv1, self.bn1).relu_())
        features = []
        for name in self.stage_names:
            x = getattr(self, name)(x)
            features.append(x)
        return features

    def stages(self) -> list[tuple[str, nn.Module]]:
        stem = nn.ModuleList([self.conv1, self.bn1])
        return [("stem", stem), *((name, getattr(self, name)) for name in self.stage_names)]

    def pop_c5(self, *, stride: int = 2) -> nn.Sequential:
        """Removes the last stage from the backbone and returns it, to run it on each RoI (C4 detectors).

        A `stride` of 1 is for RoIs that are already pooled at C5's resolution (7x7 instead of 14x14).
        """
        name = self.stage_names[-1]
        c5: nn.Sequential = getattr(self, name)
        delattr(self, name)
        self.stage_names = self.stage_names[:-1]
        self.channels, self.strides = self.channels[:-1], self.strides[:-1]
        for module in c5[0].modules():
            if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
                module.stride = (stride, stride)
            elif isinstance(module, ZeroPadding):
                module.stride = stride
        return c5
