"""Builds the model and the optimizer at step 0, and rejects configs that cannot be trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from resdet.config import Config
from resdet.engine import checkpoint
from resdet.engine.distributed import World, batch_norms
from resdet.engine.task.interface import ImageSet
from resdet.engine.task.table import task_of
from resdet.engine.train.alternating import choose_parts
from resdet.engine.train.ema import average_of
from resdet.engine.train.optim import build_optimizer
from resdet.engine.train.state import TrainState
from resdet.errors import UserError
from resdet.models.build.conventions import completed
from resdet.models.rcnn import RCNN


def check_setup(config: Config, world: World) -> None:
    """Raises UserError for numbers that cannot be divided among the processes."""
    if config.train.batch_size % world.size:
        raise UserError(
            f"train.batch_size={config.train.batch_size} counts the images of all processes and must be divisible by"
            f" their number, {world.size}"
        )


def check_num_classes(config: Config, dataset: ImageSet) -> None:
    """Raises UserError if the number of classes in the config differs from the data."""
    found, wanted = len(dataset.class_names), config.model.num_classes
    if wanted is not None and wanted != found:
        raise UserError(f"model.num_classes={wanted}, but {dataset.annotations} has {found} categories; drop the key")


def build_state(
    config: Config, class_names: Sequence[str], device: torch.device, world: World, *, pretrained: bool = True
) -> tuple[TrainState, Config, list[str]]:
    """A model and an optimizer at step 0, the same in every process for the same seed.

    Also returns the config, completed with the conventions of the weights, and lines about the loaded weights. Without
    `pretrained` no weights are loaded, because a checkpoint is loaded next.
    """
    _ = torch.manual_seed(config.train.seed)
    whole = config.model.weights if pretrained else None
    start = with_backbone_file(config) if pretrained else checkpoint.without_weights(config)
    task = task_of(config)
    if whole:
        file, _ = checkpoint.find_model_file(Path(whole))
        model, model_config, loaded = task.pretrained(config.model, file, class_names)
        config = replace(config, model=model_config)
    else:
        model = task.build(start.model, len(class_names))
        config = replace(config, model=completed(config.model, None, "the config")[0])
        loaded = model.notes if isinstance(model, RCNN) else ()
    choose_parts(model, config)
    check_batch_norm(model, config, world)
    layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
    model = model.to(device, memory_format=layout)  # pyright: ignore[reportCallIssue]
    _ = torch.manual_seed(config.train.seed + world.rank)  # dropout must differ between processes
    ema = average_of(model, config.train.ema)
    return TrainState(model, build_optimizer(model, config.optim), ema), config, list(loaded)


def with_backbone_file(config: Config) -> Config:
    """The config with the path of the model file in place of a run or a checkpoint whose backbone is used."""
    weights = config.model.backbone.weights
    if weights is None or not (Path(weights).is_dir() or checkpoint.is_named(Path(weights))):
        return config
    file, _ = checkpoint.find_model_file(Path(weights))
    backbone = replace(config.model.backbone, weights=str(file))
    return replace(config, model=replace(config.model, backbone=backbone))


def check_batch_norm(model: nn.Module, config: Config, world: World) -> None:
    """Statistics of a single image are too noisy for training (the pixels of one image are not independent)."""
    learns_statistics = any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    if learns_statistics and config.train.batch_size // world.size == 1:
        raise UserError(
            "batch normalization with 1 image a process (train.batch_size over the number of processes);"
            " use model.backbone.norm=gn, frozen_bn or sync_bn, or a larger batch"
        )
    if config.train.precise_bn and not batch_norms(model):
        raise UserError(
            f"train.precise_bn={config.train.precise_bn}, but no layer of the model keeps batch statistics"
            f" (model.backbone.norm={config.model.backbone.norm}); use model.backbone.norm=bn, or train.precise_bn=0"
        )
