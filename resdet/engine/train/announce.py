"""The lines that a run prints before its first step."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from resdet.config import Config
from resdet.data.sets.coco import CocoDataset
from resdet.engine.machine import unusable_driver
from resdet.engine.train.doubts import endless_warmup, missing_anchors
from resdet.engine.train.optim import learning_rate_scales, peak_learning_rate
from resdet.engine.train.schedules import WITHOUT_WARMUP
from resdet.engine.train.state import Run, TrainState
from resdet.version import __version__


def announce(state: TrainState, run: Run, source: Path | None, *, loaded: list[str], warnings: list[str]) -> None:
    """Prints a summary of the model, the data and the settings of the training."""
    config, log, world = run.config, run.log, run.world
    threads = f"{torch.get_num_threads()} threads" if run.device.type == "cpu" else torch.cuda.get_device_name()
    processes = f", {world.size} processes" if world.size > 1 else ""
    log.say(f"resdet {__version__}, torch {torch.__version__}, {run.device.type} ({threads}){processes}")
    sizes = [parameter.numel() for parameter in state.model.parameters()]
    trained = sum(parameter.numel() for parameter in state.model.parameters() if parameter.requires_grad)
    log.say(f"model: {config.model.backbone.name}, {sum(sizes) / 1e6:.2f} M parameters, {trained / 1e6:.2f} M trained")
    mean, std = state.model.normalization
    log.say(f"images are normalized by the mean {mean} and the deviation {std} (R, G, B of 0..255)")
    for name, dataset in (("train", run.train_set), ("val", run.val_set)):
        log.say(f"{name}: {dataset.report.summary()}")
    if run.train_set is run.val_set:
        log.say(f"overfit: trains and evaluates on the same {len(run.train_set)} images")
    for line in (*lines_about_rates(state, run), *lines_about_choices(run), *loaded):
        log.say(line)
    gaps = run.task.warnings(run.val_set, config)
    driver = [problem] if (problem := unusable_driver()) and config.train.device == "auto" else []
    doubts = [*random_constants(config, state.model), *endless_warmup(config)]
    if isinstance(run.train_set, CocoDataset):
        doubts += missing_anchors(config, run.train_set)
    for warning in (*driver, *doubts, *too_few_checkpoints(config), *gaps, *warnings):
        log.warn(warning)
    if source:
        log.say(f"resumed from {source} at step {state.step}")


def lines_about_rates(state: TrainState, run: Run) -> list[str]:
    """The length of the training and its learning rates."""
    optim, train = run.config.optim, run.config.train
    lines: list[str] = []
    if train.epochs is not None:
        lines.append(f"train.epochs={train.epochs:g} of {len(run.train_set)} images: train.steps={train.steps}")
    warmup = f"{optim.warmup_steps} steps of" if optim.schedule not in WITHOUT_WARMUP else "no"
    lines.append(
        f"learning rate {peak_learning_rate(optim, train):.6g} = {optim.lr:g} x {train.batch_size} /"
        f" {optim.reference_batch} (optim.lr x batch / reference batch), {warmup} warm-up,"
        f" {optim.schedule} schedule, {train.steps} steps"
    )
    low, high = learning_rate_scales(state.optimizer)
    if (low, high) != (1.0, 1.0):
        scales = f"backbone_lr={optim.backbone_lr:g}, layer_decay={optim.layer_decay:g}"
        lines.append(f"learning rates of the layers: {low:.3g} to {high:.3g} times that (optim: {scales})")
    return lines


def lines_about_choices(run: Run) -> list[str]:
    """What differs from a plain training."""
    train = run.config.train
    lines: list[str] = []
    if train.accumulate > 1:
        lines.append(f"each update in {train.accumulate} parts (train.accumulate); a batch norm sees the images of one")
    if train.ema:
        lines.append(f"the average of the weights is evaluated and saved (train.ema, decay {train.ema.decay:g})")
    if train.patience is not None:
        lines.append(f"ends after {train.patience} evaluations without a better {run.goal.words} (train.patience)")
    if run.config.eval.best is not None:
        lines.append(f"the best checkpoint is chosen by {run.goal.name} (eval.best)")
    return lines


def too_few_checkpoints(config: Config) -> list[str]:
    """Warns about a run that could lose all its steps with one file."""
    if config.train.keep_checkpoints > 1:
        return []
    return [
        "train.keep_checkpoints=1: if the newest checkpoint is damaged, there is no other to go on from; 2 keeps one"
    ]


def random_constants(config: Config, model: nn.Module) -> list[str]:
    """Warns about layers that are never trained although no weights were loaded into them."""
    if config.model.weights or config.model.backbone.weights:
        return []
    frozen = sum(not parameter.requires_grad for parameter in model.parameters())
    frozen_norms = any("FrozenBatchNorm" in type(module).__name__ for module in model.modules())
    if not frozen and not frozen_norms:
        return []
    what = [f"{frozen} frozen parameters"] * bool(frozen) + ["frozen batch normalization"] * frozen_norms
    return [
        f"{' and '.join(what)} with random weights will never learn: set model.backbone.weights, or train from scratch"
        " with model.backbone.norm=gn model.backbone.frozen_stages=0"
    ]
