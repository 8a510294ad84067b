"""A rehearsal: a few steps and one evaluation batch, timed, with nothing written."""

from __future__ import annotations

import time
from datetime import timedelta

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resdet.data.batches.loader import LoadedBatch, evaluation_batches
from resdet.data.sets.coco import CocoDataset
from resdet.engine.alternating import losses_module
from resdet.engine.classify import training_batches
from resdet.engine.distributed import autocast, to_device
from resdet.engine.evaluate import predict_batch
from resdet.engine.optim import clip_gradients, learning_rate, set_learning_rate
from resdet.engine.resources import peak_memory
from resdet.engine.state import Metrics, Run, TrainState

TIMED = 2  # steps after a first one, which allocates and compiles


def rehearse(state: TrainState, run: Run) -> Metrics:
    """Makes steps as training would, predicts one batch, and says what a whole run would take."""
    config, log, world = run.config, run.log, run.world
    losses_of = losses_module(state.model, config, world, run.device)
    batches = training_batches(run.train_set, config, start_step=0, rank=world.rank, world_size=world.size)
    seconds = [timed_step(losses_of, next(batches), state, run) for _ in range(1 + TIMED)]
    if isinstance(run.val_set, CocoDataset):
        loaded = next(iter(evaluation_batches(run.val_set, config, rank=world.rank, world_size=world.size)))
        _ = state.model.eval()
        with torch.inference_mode(), autocast(config.train, run.device):
            detections = predict_batch(state.model, to_device(loaded.batch, config.train, run.device))
        log.say(f"evaluation batch: {int(detections.valid.sum())} detections on {len(loaded.images)} images")
    step = sum(seconds[1:]) / TIMED
    total = timedelta(seconds=round(step * config.train.steps))
    log.say(f"{step:.3g} s a step, so about {total} for {config.train.steps} steps, evaluation aside")
    log.say(f"memory: {peak_memory(run.device) / 2**20:.0f} MiB at most so far")
    log.say("dry run: nothing was written")
    return {}


def timed_step(losses_of: nn.Module, loaded: LoadedBatch, state: TrainState, run: Run) -> float:
    """One update; returns its seconds, without the wait for data."""
    config = run.config
    start = time.perf_counter()
    set_learning_rate(state.optimizer, learning_rate(state.step, config.optim, config.train))
    with autocast(config.train, run.device):
        losses: dict[str, Float[Tensor, ""]] = losses_of(to_device(loaded.batch, config.train, run.device))
    state.optimizer.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    _ = clip_gradients(state.model, config.train.grad_clip)
    _ = state.optimizer.step()
    state.step += 1
    values = ", ".join(f"{name} {value.item():.4g}" for name, value in losses.items())  # waits for the device
    seconds = time.perf_counter() - start
    run.log.say(f"step {state.step}: {values} ({seconds:.3g} s)")
    return seconds
