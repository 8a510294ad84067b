"""Conventions of a detector that depend on its weights: they are read from pretrained weights and stored with our own.

If a config does not give them (null), they come from `model.weights`; without weights they come from CONVENTIONS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch

from resdet.config import Config, ModelConfig
from resdet.errors import UserError
from resdet.models.backbones import BACKBONES, build_backbone
from resdet.models.normalised import Normalisation, Normalised
from resdet.weights.contract import WeightContract, conflicts
from resdet.weights.layers import LayerConventions, layer_conventions

# The fields of a contract, the keys under `model` that they determine, and the values without weights.
CONVENTIONS: dict[str, tuple[tuple[str, ...], Any]] = {
    "anchors_rounded": (("anchors.rounded",), False),
    "roi_align_aligned": (("box_head.aligned",), True),
    "roi_sampling_ratio": (("box_head.sampling_ratio", "mask_head.sampling_ratio"), 2),
    "pixel_mean": (("pixel_mean",), None),
    "pixel_std": (("pixel_std",), None),
}
OF_THE_MODEL = ("pixel_mean", "pixel_std")  # which a model has and its file's contract states: never written out


def completed(config: ModelConfig, contract: WeightContract | None, source: str) -> tuple[ModelConfig, tuple[str, ...]]:
    """The config with its null conventions filled in from the weights or, without weights, from the table; and a line
    about the weights.

    The mean and deviation of images stay open: `normalise_as` gives them to the model.
    Raises UserError if the config contradicts the conventions of the weights.
    """
    taken: list[str] = []
    for field, (keys, default) in CONVENTIONS.items():
        theirs = None if contract is None else getattr(contract, field)
        for key in keys:
            if not _has(config, key):
                continue
            given = _at(config, key)
            if given is not None and contract is not None and (found := conflicts(contract, **{field: given})):
                raise UserError(f"{source}: {found[0]}; leave model.{key} out, for it follows from the weights")
            value = list(theirs) if isinstance(theirs, tuple) else theirs
            if given is None and (value := default if value is None else value) is not None:
                config = config if field in OF_THE_MODEL else _with(config, key, value)
                taken += [f"model.{key}={_text(value)}"] if theirs is not None else []
    return config, ((f"taken over from {source}: {', '.join(taken)}",) if taken else ())


def as_in(config: ModelConfig, other: ModelConfig) -> ModelConfig:
    """The config with its null conventions filled in from another config, that of the run that is continued.

    Runs of earlier versions have the mean and deviation written out, and keep them.
    """
    for keys, _ in CONVENTIONS.values():
        for key in keys:
            if _has(config, key) and _has(other, key) and _at(config, key) is None:
                config = _with(config, key, _at(other, key))
    return config


def normalise_as(model: Normalised, config: ModelConfig, contract: WeightContract | None) -> None:
    """Sets the mean and deviation that the weights were trained with, unless the config gives its own."""
    if contract is not None:
        model.normalise_by(config.pixel_mean or contract.pixel_mean, config.pixel_std or contract.pixel_std)


def contract_of(
    config: Config, class_names: Sequence[str], source: str, normalisation: Normalisation
) -> WeightContract:
    """The contract of this model's weights, for another model that starts from them; `normalisation` is the model's."""
    model, _ = completed(config.model, None, source)
    (r, g, b), (std_r, std_g, std_b) = normalisation
    layers = backbone_conventions(model.backbone.name, model.backbone.norm)
    box = model.box_head if config.task == "detection" and _aligns(model) else None
    return WeightContract(
        (r, g, b),
        (std_r, std_g, std_b),
        stride_in_1x1=layers.stride_in_1x1,
        bn_eps=layers.bn_eps,
        class_names=tuple(class_names),
        architecture=model.backbone.name,
        source=source,
        anchors_rounded=model.anchors.rounded if config.task == "detection" else None,
        roi_align_aligned=box.aligned if box else None,
        roi_sampling_ratio=box.sampling_ratio if box else None,
    )


def backbone_conventions(name: str, norm: str) -> LayerConventions:
    return _conventions(name, norm, BACKBONES.get(name))


@lru_cache(maxsize=64)
def _conventions(name: str, norm: str, _: object) -> LayerConventions:
    """The conventions of a design, which is built once without memory; the last argument separates designs of the same
    name.
    """
    with torch.device("meta"):
        return layer_conventions(build_backbone(name, norm=norm))


def _has(config: ModelConfig, key: str) -> bool:
    """Whether the part to which a key belongs exists."""
    part, dot, _ = key.partition(".")
    return not dot or getattr(config, part) is not None


def _aligns(config: ModelConfig) -> bool:
    return config.box_head is not None and config.box_head.pooling == "roi_align"


def _at(config: Any, key: str) -> Any:
    for name in key.split("."):
        config = getattr(config, name)
    return config


def _with(config: ModelConfig, key: str, value: Any) -> ModelConfig:
    part, dot, name = key.rpartition(".")
    return replace(config, **{part: replace(getattr(config, part), **{name: value})} if dot else {name: value})


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(f"{number:.6g}" for number in value) + "]"
    return str(value).lower()
