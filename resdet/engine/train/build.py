"""Builds the model and the optimizer at step 0, and rejects configs that cannot be trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from resdet.config import Config
from resdet.engine import checkpoint
from resdet.engine.distributed import World, batch_norms, memory_format
from resdet.engine.machine import check_compiler
from resdet.engine.task.interface import ImageSet
from resdet.engine.task.table import task_of
from resdet.engine.train.alternating import choose_parts
from resdet.engine.train.ema import average_of
from resdet.engine.train.memory_format import with_memory_format
from resdet.engine.train.optim import build_optimizer
from resdet.engine.train.optimizers import check_optimizer
from resdet.engine.train.sharded import check_sharding
from resdet.engine.train.state import TrainState
from resdet.errors import UserError
from resdet.models.build.conventions import completed
from resdet.models.rcnn import RCNN


def check_setup(config: Config, world: World) -> None:
    """Raises UserError for numbers that cannot be divided among the processes, and each share into its parts."""
    if config.train.batch_size % world.size:
        raise UserError(
            f"train.batch_size={config.train.batch_size} counts the images of all processes and must be divisible by"
            f" their number, {world.size}"
        )
    check_length(config)
    check_optimizer(config.optim)
    check_sharding(config)
    if config.train.compile:
        check_compiler("train.compile")
    if config.eval.loss and config.train.proposals is not None:
        raise UserError("eval.loss=true with train.proposals: the first stage is not trained; set eval.loss=false")
    share = config.train.batch_size // world.size
    if share % config.train.accumulate:
        raise UserError(
            f"train.accumulate={config.train.accumulate} must divide the images of a process in an update, {share}"
            f" (train.batch_size={config.train.batch_size} over {world.size} processes)"
        )


def check_length(config: Config) -> None:
    """Raises UserError for keys about the end of a training that contradict one another."""
    if config.train.epochs is not None and config.train.minutes is not None:
        raise UserError("train.epochs and train.minutes both say how long to train; set one of them to null")
    if config.train.patience is not None and not config.eval.every:
        raise UserError(
            f"train.patience={config.train.patience} counts evaluations, and there is one, at the end; set eval.every"
        )


def with_steps(config: Config, images: int) -> Config:
    """The config with the `train.steps` that follow from `train.epochs`, if that is given: a whole number of updates,
    at least one. An epoch is as many batches as hold all training images.
    """
    if config.train.epochs is None:
        return config
    in_an_epoch = math.ceil(images / config.train.batch_size)
    return replace(config, train=replace(config.train, steps=max(1, round(config.train.epochs * in_an_epoch))))


def check_num_classes(config: Config, dataset: ImageSet) -> None:
    """Raises UserError if the number of classes in the config differs from the data."""
    found, wanted = len(dataset.class_names), config.model.num_classes
    if wanted is not None and wanted != found:
        raise UserError(f"model.num_classes={wanted}, but {dataset.annotations} has {found} categories; drop the key")


def build_state(
    config: Config, class_names: Sequence[str], device: torch.device, world: World, *, pretrained: bool = True
) -> tuple[TrainState, Config, list[str]]:
    """A model and an optimizer at step 0, the same in every process for the same seed.

    Also returns the config, completed with the conventions of the weights and with a memory format, and lines about
    both. Without `pretrained` no weights are loaded, because a checkpoint is loaded next.
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
    config, timed = with_memory_format(config, model.backbone, device, world)
    model = model.to(device, memory_format=memory_format(config.train))  # pyright: ignore[reportCallIssue]
    _ = torch.manual_seed(config.train.seed + world.rank)  # dropout must differ between processes
    ema = average_of(model, config.train.ema)
    scaler = torch.amp.grad_scaler.GradScaler(device.type) if config.train.amp == "fp16" else None
    return TrainState(model, build_optimizer(model, config.optim), ema=ema, scaler=scaler), config, [*loaded, *timed]


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
    if learns_statistics and config.train.batch_size // (world.size * config.train.accumulate) == 1:
        raise UserError(
            "batch normalization with 1 image a process (train.batch_size over processes and train.accumulate);"
            " use model.backbone.norm=gn, frozen_bn or sync_bn, or a larger batch"
        )
    if config.train.precise_bn and not batch_norms(model):
        raise UserError(
            f"train.precise_bn={config.train.precise_bn}, but no layer of the model keeps batch statistics"
            f" (model.backbone.norm={config.model.backbone.norm}); use model.backbone.norm=bn, or train.precise_bn=0"
        )
