"""The table of backbones by name. A variant has its own name in the table, instead of a flag."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial

from resdet.errors import UserError, did_you_mean
from resdet.models.backbones.base import Backbone, freeze
from resdet.models.backbones.nano import Nano
from resdet.models.backbones.norms import NORMS
from resdet.models.backbones.places import check_maps
from resdet.models.backbones.preact import PreActivationBasicBlock, PreActivationBottleneck, PreActivationResNet
from resdet.models.backbones.resnet import BasicBlock, Bottleneck, PlainBlock, ResNet
from resdet.models.backbones.vgg import VGG

__all__ = ["BACKBONES", "Backbone", "build_backbone", "freeze"]

_resnet18, _resnet34 = (2, 2, 2, 2), (3, 4, 6, 3)  # blocks per stage
_resnet50, _resnet101, _resnet152, _resnet200 = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3), (3, 24, 36, 3)

_basic = partial(ResNet, BasicBlock, c2_channels=64)
_basic_a = partial(ResNet, partial(BasicBlock, option="A"), c2_channels=64)
_basic_c = partial(ResNet, partial(BasicBlock, option="C"), c2_channels=64)
_plain = partial(ResNet, PlainBlock, c2_channels=64)
_cifar = partial(ResNet, partial(BasicBlock, option="A"), stem="cifar", stem_channels=16, c2_channels=16)
_plain_cifar = partial(ResNet, PlainBlock, stem="cifar", stem_channels=16, c2_channels=16)
_bottleneck = partial(ResNet, Bottleneck)
_caffe = partial(ResNet, partial(Bottleneck, stride_in_1x1=True))
_wide = partial(ResNet, partial(Bottleneck, reduction=2))
_deformable = partial(ResNet, Bottleneck, deformable=("layer2", "layer3", "layer4"))
_preact_basic = partial(PreActivationResNet, PreActivationBasicBlock, c2_channels=64)
_preact_bottleneck = partial(PreActivationResNet, PreActivationBottleneck)


def _vgg(depths: Sequence[int], *, norm: str, width: float = 1.0) -> VGG:
    """The original nets have no normalization, whatever norm is given."""
    return VGG(depths, norm=None, width=width)


BACKBONES: dict[str, Callable[..., Backbone]] = {
    "resnet18": partial(_basic, _resnet18),
    "resnet34": partial(_basic, _resnet34),
    "resnet50": partial(_bottleneck, _resnet50),
    "resnet101": partial(_bottleneck, _resnet101),
    "resnet152": partial(_bottleneck, _resnet152),
    "resnet200": partial(_bottleneck, _resnet200),
    # Stride in the first 1x1, as in the paper and in MSRA's and Caffe2's weights.
    "resnet50_caffe": partial(_caffe, _resnet50),
    "resnet101_caffe": partial(_caffe, _resnet101),
    "resnet152_caffe": partial(_caffe, _resnet152),
    # Shortcuts without parameters (A), or all with projections (C); the other names use B.
    "resnet18_a": partial(_basic_a, _resnet18),
    "resnet34_a": partial(_basic_a, _resnet34),
    "resnet34_c": partial(_basic_c, _resnet34),
    # The same layers without shortcuts.
    "plain18": partial(_plain, _resnet18),
    "plain34": partial(_plain, _resnet34),
    # groups x width: the 3x3 layers have groups * width channels at C2, which is 256 / reduction.
    "resnext50_32x4d": partial(ResNet, partial(Bottleneck, groups=32, reduction=2), _resnet50),
    "resnext101_32x8d": partial(ResNet, partial(Bottleneck, groups=32, reduction=1), _resnet101),
    "resnext101_64x4d": partial(ResNet, partial(Bottleneck, groups=64, reduction=1), _resnet101),
    "wide_resnet50_2": partial(_wide, _resnet50),
    "wide_resnet101_2": partial(_wide, _resnet101),
    # Deformable 3x3 convolutions in conv3_x to conv5_x.
    "resnet50_deformable": partial(_deformable, _resnet50),
    "resnet101_deformable": partial(_deformable, _resnet101),
    # Norm and ReLU before the convolutions.
    "preact_resnet18": partial(_preact_basic, _resnet18),
    "preact_resnet34": partial(_preact_basic, _resnet34),
    "preact_resnet50": partial(_preact_bottleneck, _resnet50),
    "preact_resnet101": partial(_preact_bottleneck, _resnet101),
    "preact_resnet152": partial(_preact_bottleneck, _resnet152),
    "preact_resnet200": partial(_preact_bottleneck, _resnet200),
    # For 32x32 images, 6n + 2 layers: three stages of n blocks each, at strides 1, 2 and 4.
    "resnet20_cifar": partial(_cifar, (3, 3, 3)),
    "resnet32_cifar": partial(_cifar, (5, 5, 5)),
    "resnet44_cifar": partial(_cifar, (7, 7, 7)),
    "resnet56_cifar": partial(_cifar, (9, 9, 9)),
    "resnet110_cifar": partial(_cifar, (18, 18, 18)),
    "resnet1202_cifar": partial(_cifar, (200, 200, 200)),
    "plain20_cifar": partial(_plain_cifar, (3, 3, 3)),
    "plain32_cifar": partial(_plain_cifar, (5, 5, 5)),
    "plain44_cifar": partial(_plain_cifar, (7, 7, 7)),
    "plain56_cifar": partial(_plain_cifar, (9, 9, 9)),
    "plain110_cifar": partial(_plain_cifar, (18, 18, 18)),
    # Without normalization, and with it.
    "vgg11": partial(_vgg, (1, 1, 2, 2, 2)),
    "vgg13": partial(_vgg, (2, 2, 2, 2, 2)),
    "vgg16": partial(_vgg, (2, 2, 3, 3, 3)),
    "vgg19": partial(_vgg, (2, 2, 4, 4, 4)),
    "vgg11_bn": partial(VGG, (1, 1, 2, 2, 2)),
    "vgg13_bn": partial(VGG, (2, 2, 2, 2, 2)),
    "vgg16_bn": partial(VGG, (2, 2, 3, 3, 3)),
    "vgg19_bn": partial(VGG, (2, 2, 4, 4, 4)),
    "nano": Nano,
}


def build_backbone(
    name: str,
    *,
    norm: str = "frozen_bn",
    width: float = 1.0,
    frozen_stages: int = 0,
    dilated_c5: bool = False,
    stochastic_depth: float = 0.0,
    zero_init: bool = False,
) -> Backbone:
    """A backbone with He's initialization and with its first stages frozen.

    Args:
        name: a key of BACKBONES, or timm/<model>.
        norm: a key of NORMS; nets that are designed without normalization (vgg16) ignore it.
        width: factor on the channels of all stages, each then rounded to a multiple of 8.
        frozen_stages: 0 trains all, 1 freezes the stem, 2 also the first stage, ...
        dilated_c5: the last stage is dilated instead of strided (DC5).
        stochastic_depth: the fraction of images that skip the last block in training; linearly less before it.
        zero_init: each block starts as its shortcut.

    Raises:
        UserError: an unknown name or norm, an option that the family does not have, or maps that are not where a
            detector has its anchors.
    """
    if norm not in NORMS:
        raise UserError(f"unknown norm {norm!r}{did_you_mean(norm, NORMS)}")
    if not 0 <= stochastic_depth <= 1:
        raise UserError(f"stochastic_depth={stochastic_depth} is a fraction of images: it must lie between 0 and 1")
    make = _constructor(name)
    wanted = {"dilated_c5": dilated_c5, "stochastic_depth": stochastic_depth, "zero_init": zero_init}
    options = {option: value for option, value in wanted.items() if value}
    if width != 1:
        options["width"] = width
    if missing := options.keys() - inspect.signature(make).parameters.keys():
        raise UserError(f"backbone {name!r} has no option {', '.join(sorted(missing))}; leave it out")
    try:
        backbone = make(norm=norm, **options)
    except ValueError as error:  # torch's, of channels that are no multiple of the groups
        if width == 1:
            raise
        raise UserError(f"backbone {name!r} cannot have {width} times its channels: {error}") from None
    check_maps(backbone, name)
    freeze(backbone, frozen_stages)
    return backbone


def _constructor(name: str) -> Callable[..., Backbone]:
    family, slash, model_name = name.partition("/")
    if family == "timm" and slash:
        from resdet.models.backbones.timm_backbone import TimmBackbone  # the import of timm takes half a second

        return partial(TimmBackbone, model_name)
    if name not in BACKBONES:
        raise UserError(f"unknown backbone {name!r}{did_you_mean(name, BACKBONES)}")
    return BACKBONES[name]
