"""Backbones by name. A variant is a name of its own in the table, not a flag."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from resdet.errors import UserError, did_you_mean
from resdet.models.backbones.base import Backbone, freeze
from resdet.models.backbones.nano import Nano
from resdet.models.backbones.norms import NORMS
from resdet.models.backbones.resnet import BasicBlock, Bottleneck, PlainBlock, ResNet
from resdet.models.backbones.vgg import VGG

__all__ = ["BACKBONES", "Backbone", "build_backbone", "freeze"]

_basic = partial(ResNet, BasicBlock, c2_channels=64)
_plain = partial(ResNet, PlainBlock, c2_channels=64)
_bottleneck = partial(ResNet, Bottleneck)


def _vgg(depths: Sequence[int], *, norm: str) -> VGG:
    """The original nets have no normalisation, whatever the others are given."""
    return VGG(depths, norm=None)


RESNETS: dict[str, Callable[..., ResNet]] = {
    "resnet18": partial(_basic, (2, 2, 2, 2)),
    "resnet34": partial(_basic, (3, 4, 6, 3)),
    "resnet50": partial(_bottleneck, (3, 4, 6, 3)),
    "resnet101": partial(_bottleneck, (3, 4, 23, 3)),
    "resnet152": partial(_bottleneck, (3, 8, 36, 3)),
    "resnet200": partial(_bottleneck, (3, 24, 36, 3)),
    "plain18": partial(_plain, (2, 2, 2, 2)),
    "plain34": partial(_plain, (3, 4, 6, 3)),
}

OTHERS: dict[str, Callable[..., Backbone]] = {
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

BACKBONES: dict[str, Callable[..., Backbone]] = RESNETS | OTHERS


def build_backbone(name: str, *, norm: str = "frozen_bn", frozen_stages: int = 0, dilated_c5: bool = False) -> Backbone:
    """A backbone with He's initialisation, its first stages frozen.

    Args:
        name: a key of BACKBONES.
        norm: a key of NORMS; nets that are defined without normalisation (vgg16) ignore it.
        frozen_stages: 0 trains all, 1 freezes the stem, 2 also the first stage, ...
        dilated_c5: the last stage is dilated instead of strided (DC5); ResNets only.

    Raises:
        UserError: an unknown name or norm, or an option that the family does not have.
    """
    if name not in BACKBONES:
        raise UserError(f"unknown backbone {name!r}{did_you_mean(name, BACKBONES)}")
    if norm not in NORMS:
        raise UserError(f"unknown norm {norm!r}{did_you_mean(norm, NORMS)}")
    if name in RESNETS:
        backbone = RESNETS[name](norm=norm, dilated_c5=dilated_c5)
    elif dilated_c5:
        raise UserError(f"backbone {name!r} has no conv5 stage to dilate; dilated_c5 is for ResNets")
    else:
        backbone = OTHERS[name](norm=norm)
    freeze(backbone, frozen_stages)
    return backbone
