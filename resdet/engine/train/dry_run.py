"""A dry run: a few steps and one evaluation batch with time measurement; nothing is written."""

from __future__ import annotations

import time
from datetime import timedelta

from torch import nn

from resdet.data.batches.loader import LoadedBatch
from resdet.engine.resources import peak_memory
from resdet.engine.run_folder import Figures
from resdet.engine.train.sharded import prepared
from resdet.engine.train.state import Run, TrainState
from resdet.engine.train.update import settle, update

TIMED = 2  # steps after the first one, which includes allocation and compilation


def rehearse(state: TrainState, run: Run) -> Figures:
    """Makes steps as in training, predicts one batch, and prints the estimated time and memory of a whole run.

    Raises UserError where training would.
    """
    config, log, world = run.config, run.log, run.world
    losses_of = prepared(state, run)
    batches = run.task.training_batches(run.train_set, config, start_step=0, rank=world.rank, world_size=world.size)
    seconds = [timed_step(losses_of, next(batches), state, run) for _ in range(1 + TIMED)]
    state.gather()
    for line in run.task.rehearse(state.whole, run.val_set, config, world=world, device=run.device):
        log.say(line)
    step = sum(seconds[1:]) / TIMED
    total = timedelta(seconds=round(step * config.train.steps))
    log.say(f"{step:.3g} s a step, so about {total} for {config.train.steps} steps, evaluation aside")
    log.say(f"memory: {peak_memory(run.device) / 2**20:.0f} MiB at most so far")
    log.say("dry run: nothing was written")
    return {}


def timed_step(losses_of: nn.Module, loaded: LoadedBatch, state: TrainState, run: Run) -> float:
    """Makes one update; returns its seconds, without the time of waiting for data."""
    start = time.perf_counter()
    _ = update(state, run, losses_of, loaded)
    record = settle(state, run)
    seconds = time.perf_counter() - start
    values = ", ".join(f"{name} {value:.4g}" for name, value in record.items() if name.startswith("loss_"))
    run.log.say(f"step {state.step}: {values} ({seconds:.3g} s)")
    return seconds
