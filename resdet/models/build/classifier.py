"""Builds an image classifier from a config."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
from timm.models import get_pretrained_cfg
from torch import Tensor

from resdet.config import ModelConfig, checked
from resdet.errors import UserError
from resdet.models.backbones.timm_backbone import in_pixels, released_config, set_norm
from resdet.models.build.conventions import completed, normalize_as
from resdet.models.build.detector import VGG_DROPOUT, backbone_of, without_weights
from resdet.models.classifier import Classifier, WholeClassifier, fully_connected
from resdet.weights.detector import load_model_weights
from resdet.weights.published import PublishedWeights, open_weights


def build_classifier(config: ModelConfig, num_classes: int) -> Classifier:
    """The image classifier that a config describes, from scratch.

    Raises UserError for `model.backbone.weights`, which are for detectors, and for layers that the backbone lacks.
    """
    config = checked(config)
    if config.backbone.weights:
        raise UserError(
            f"model.backbone.weights={config.backbone.weights}: a classifier starts from scratch, or as a whole from "
            "model.weights; leave it out"
        )
    if config.classifier.name == "timm":
        return _of_timm(config, num_classes)
    backbone = backbone_of(config)
    layers, width = None, config.classifier.fc_dim
    if config.classifier.name == "two_fc":
        layers = fully_connected(backbone.channels[-1], width, dropout=VGG_DROPOUT)
    return Classifier(
        backbone,
        num_classes,
        pixel_mean=config.pixel_mean or backbone.pixel_mean,
        pixel_std=config.pixel_std or backbone.pixel_std,
        hidden=layers,
        hidden_channels=width,
    )


def pretrained_classifier(
    config: ModelConfig, file: Path, class_names: Sequence[str]
) -> tuple[Classifier, ModelConfig, tuple[str, ...]]:
    """A classifier that starts from the weights of a whole classifier; its last layer is initialized anew for other
    classes. The result is as that of `pretrained_detector`.
    """
    weights = open_weights(file)
    contract = None if weights.contract is None else weights.contract.of_backbone()
    config, taken = completed(config, contract, str(file))
    model = build_classifier(without_weights(config), len(class_names))
    report = load_model_weights(
        model, _under_names_of(model, weights), class_heads=class_layers(model), class_names=class_names
    )
    normalize_as(model, config, contract)
    return model, config, (*report.details().splitlines(), *taken)


def class_layers(model: Classifier) -> tuple[str, ...]:
    """The beginnings of the names of the parameters that depend on the classes."""
    if not isinstance(model, WholeClassifier):
        return ("fc.",)
    return tuple(f"net.{name}." for name in _last_layers(model.net.pretrained_cfg))  # pyright: ignore[reportArgumentType]


def timm_class_rows(name: str, state: Mapping[str, Tensor]) -> int | None:
    """The number of classes of a complete classifier timm/<model>; None without the layer of the classes."""
    released = get_pretrained_cfg(name.removeprefix("timm/"))
    last = _last_layers(released.to_dict()) if released else ()
    weights = [state[f"{layer}.weight"] for layer in last if f"{layer}.weight" in state]
    return len(weights[0]) if weights else None


def timm_test_sides(name: str) -> tuple[int, int]:
    """The sides of the square and of the short side of the image that timm evaluates a model with."""
    released = released_config(name.removeprefix("timm/"))
    crop = released.test_input_size or released.input_size
    share = released.test_crop_pct or released.crop_pct
    return crop[-1], math.floor(crop[-1] / share)


def _last_layers(released: Mapping[str, Any]) -> tuple[str, ...]:
    last = released.get("classifier") or ()
    return (last,) if isinstance(last, str) else tuple(last)


def _under_names_of(model: Classifier, weights: PublishedWeights) -> PublishedWeights:
    """A file of timm has the names of the net, without the part of the model that it is here."""
    if not isinstance(model, WholeClassifier) or any(name.startswith("net.") for name in weights.state):
        return weights
    return replace(weights, state={f"net.{name}": value for name, value in weights.state.items()})


def _of_timm(config: ModelConfig, num_classes: int) -> WholeClassifier:
    spec = config.backbone
    prefix, _, name = spec.name.partition("/")
    if prefix != "timm" or spec.frozen_stages:
        raise UserError(
            f"model.classifier.name=timm with model.backbone.name={spec.name}, frozen_stages={spec.frozen_stages}:"
            " takes a whole classifier timm/MODEL and trains all of it; set model.backbone.frozen_stages=0"
        )
    released = released_config(name)
    net = timm.create_model(name, pretrained=False, num_classes=num_classes)
    set_norm(net, spec.norm, name)
    return WholeClassifier(
        net,
        pixel_mean=config.pixel_mean or in_pixels(released.mean),
        pixel_std=config.pixel_std or in_pixels(released.std),
    )
