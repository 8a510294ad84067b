"""Uses any timm model with maps at strides 4, 8, 16 and 32 as a backbone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

import timm
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers.drop import DropPath
from timm.layers.format import Format
from timm.layers.norm_act import convert_sync_batchnorm, freeze_batch_norm_2d
from timm.models import FeatureInfo, PretrainedCfg, get_pretrained_cfg
from timm.models._features import FeatureGetterNet, FeatureHookNet
from torch import Tensor, nn

from resdet.errors import UserError, did_you_mean
from resdet.models.backbones import norms
from resdet.models.backbones.base import Backbone

STRIDES = (4, 8, 16, 32)


class TimmBackbone(Backbone):
    """timm's `features_only` form of a model, with levels selected by their stride.

    `pixel_mean` and `pixel_std` are those that the model's released weights were trained with (RGB, as all of timm).

    Args:
        model_name: timm's name, with or without the tag of released weights: resnet18d, convnext_atto.d2_in1k.
        norm: frozen_bn freezes the model's own batch norms, sync_bn synchronizes them, bn keeps them; other norms
            stay as they are.
        stochastic_depth: the fraction dropped in the last block; it grows linearly from 0.
        weights: a local weights file of this model (.safetensors, .bin, .pth).

    Raises:
        UserError: an unknown name; a model that lacks one of the strides or takes one input size only; norm gn or none.
    """

    def __init__(
        self, model_name: str, *, norm: str = "frozen_bn", stochastic_depth: float = 0.0, weights: str | None = None
    ) -> None:
        super().__init__()
        config = released_config(model_name)
        self.net = create(model_name, weights, any_size=config.fixed_input_size)
        self.info: FeatureInfo = self.net.feature_info  # pyright: ignore[reportAttributeAccessIssue]
        # if strides are equal, the last map
        level_of = {stride: level for level, stride in enumerate(self.info.reduction())}
        if not set(STRIDES) <= set(level_of):
            raise UserError(
                f"backbone 'timm/{model_name}' has maps at strides {sorted(level_of)}, and a detector needs 4, 8, 16 "
                "and 32; choose a model with a pyramid, such as timm/convnext_atto"
            )
        self.levels = [level_of[stride] for stride in STRIDES]
        self.channels = tuple(self.info.channels()[level] for level in self.levels)
        self.strides = STRIDES
        self.is_nhwc = getattr(self.net, "output_fmt", Format.NCHW) == Format.NHWC
        self.pixel_mean = in_pixels(config.mean)
        self.pixel_std = in_pixels(config.std)
        set_norm(self.net, norm, model_name)
        set_stochastic_depth(self.net, stochastic_depth, model_name)

    def forward(self, images: Float[Tensor, "N 3 H W"]) -> list[Float[Tensor, "N _ _ _"]]:
        """Maps of ceil(H / stride) by ceil(W / stride).

        Some families (Swin, HRNet) need sizes that are multiples of the strides, so images are padded with zeros, and
        the padding is removed from the maps.
        """
        height, width = images.shape[2:]
        maps = self.net(F.pad(images, (0, -width % STRIDES[-1], 0, -height % STRIDES[-1])))
        levels = []
        for level, stride in zip(self.levels, STRIDES, strict=True):
            level_map = maps[level].permute(0, 3, 1, 2) if self.is_nhwc else maps[level]
            levels.append(level_map[:, :, : -(-height // stride), : -(-width // stride)])
        return levels

    def stages(self) -> list[tuple[str, nn.Module]]:
        """A stage ends with the module whose output is its map; if a map has no such module (HRNet), the stage is
        merged with the next.

        The stem ends with the last map at a stride below 4, or else before the module that C2 comes from. Parameters
        that belong to no module of their own (Hiera's embeddings of positions) are part of it.
        """
        root = self._root()
        names = [name.replace(".", "_") for name in self.info.module_name()]
        parts = list(units(root, names))
        ends = {name: index + 1 for index, (name, _) in enumerate(parts)}
        pyramid = sorted(ends[names[level]] for level in self.levels if names[level] in ends)
        below = [
            ends[name] for name, stride in zip(names, self.info.reduction(), strict=True) if stride < 4 and name in ends
        ]
        bounds = [0, max(below, default=pyramid[0] - 1), *pyramid[:-1], len(parts)]
        groups = [nn.ModuleList(part for _, part in parts[start:end]) for start, end in pairwise(bounds)]
        if alone := list(root.parameters(recurse=False)):
            groups[0].append(nn.ParameterList(alone))
        return [("stem" if index == 0 else f"stage{index}", group) for index, group in enumerate(groups)]

    def _root(self) -> nn.Module:
        """The module whose children are the layers: some of timm's forms wrap it."""
        children = dict(self.net.named_children())
        wrapped = isinstance(self.net, FeatureGetterNet | FeatureHookNet) and len(children) == 1
        return next(iter(children.values())) if wrapped else self.net

    def freeze_norms(self, within: nn.Module) -> None:
        norms.freeze_norms(self, within=within, frozen=freeze_batch_norm_2d)


def released_config(model_name: str) -> PretrainedCfg:
    """timm's configuration of a model's released weights: mean, std and whether the input size is fixed."""
    name, _, tag = model_name.partition(".")
    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), cutoff=0.5)
        remedy = did_you_mean(name, near) if near else "; timm.list_models() has the names"
        raise UserError(f"unknown backbone 'timm/{name}'{remedy}")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{name}.*")]
    if tag and tag not in tags:
        raise UserError(f"backbone 'timm/{name}' has no weights {tag!r}{did_you_mean(tag, tags)}")
    return get_pretrained_cfg(model_name) or PretrainedCfg()


def create(model_name: str, weights: str | None, *, any_size: bool) -> nn.Module:
    """The model in its `features_only` form; with `any_size`, a model for a single input size is created for
    all sizes.
    """
    options: dict[str, Any] = {"strict_img_size": False} if any_size else {}
    overlay = {"file": weights} if weights else None
    try:
        return timm.create_model(
            model_name, pretrained=bool(weights), pretrained_cfg_overlay=overlay, features_only=True, **options
        )
    except TypeError as error:
        if "strict_img_size" not in str(error):
            raise
    raise UserError(
        f"backbone 'timm/{model_name}' takes one image size only; choose one for any, such as timm/convnext_atto"
    )


def in_pixels(rgb: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = rgb
    return 255 * red, 255 * green, 255 * blue


def units(root: nn.Module, names: Sequence[str], prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The children of `root` in order; a child that contains a module of `names` is replaced by its own children; paths
    are joined by underscores.
    """
    for name, child in root.named_children():
        path = prefix + name
        if any(inner.startswith(f"{path}_") for inner in names):
            yield from units(child, names, f"{path}_")
        else:
            yield path, child


def set_norm(net: nn.Module, norm: str, model_name: str) -> None:
    """Applies a norm: a timm model keeps its original norms, but its batch norms can be frozen or synchronized."""
    if norm == "frozen_bn":
        _ = freeze_batch_norm_2d(net)
    elif norm == "sync_bn":
        _ = convert_sync_batchnorm(net)
    elif norm != "bn":
        raise UserError(
            f"backbone 'timm/{model_name}' keeps its own norms; norm {norm!r} is not bn, frozen_bn or sync_bn"
        )


def set_stochastic_depth(net: nn.Module, rate: float, model_name: str) -> None:
    """Sets drop rates from 0 linearly to `rate`, whatever timm had set."""
    paths = [module for module in net.modules() if isinstance(module, DropPath)]
    if rate and not paths:
        raise UserError(f"backbone 'timm/{model_name}' has no stochastic depth to set to {rate}")
    for index, path in enumerate(paths):
        path.drop_prob = rate * (index + 1) / len(paths)
