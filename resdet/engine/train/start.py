"""Trains a model from a config: all actions before the first step, in their order."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from resdet.config import Config, checked
from resdet.engine.boards import boards_of, check_boards
from resdet.engine.distributed import choose_device, join_world
from resdet.engine.log import RunLog
from resdet.engine.machine import enough_memory
from resdet.engine.resources import Usage
from resdet.engine.run_folder import Figures, RunFiles
from resdet.engine.signals import StopRequest
from resdet.engine.task.best import goal_of
from resdet.engine.task.interface import ImageSet
from resdet.engine.task.table import task_of
from resdet.engine.train.announce import announce
from resdet.engine.train.build import build_state, check_num_classes, check_setup, with_steps
from resdet.engine.train.deterministic import deterministic
from resdet.engine.train.dry_run import rehearse
from resdet.engine.train.loop import fit
from resdet.engine.train.rate_test import FEWEST, RateTest, rising_rates
from resdet.engine.train.resume import abandoned, as_resumed, claim, find_resume
from resdet.engine.train.saving import note_usage
from resdet.engine.train.state import Run, TrainState
from resdet.errors import UserError
from resdet.folder_lock import FolderLock

LESS_MEMORY = "raise train.accumulate, set train.recompute=true, or lower train.batch_size or data.augment.short_side"


def train(
    config: Config,
    output: str | Path,
    *,
    resume: bool | str | Path = False,
    dry_run: bool = False,
) -> Figures:
    """As `train_run`; returns the figures alone."""
    return train_run(config, output, resume=resume, dry_run=dry_run).figures


def find_learning_rate(config: Config, *, steps: int) -> RateTest:
    """A learning-rate range test of a config in `steps` updates, which writes nothing (see `RateTest`).

    Raises UserError for a mistake in config or data, and where even the first loss is not finite.
    """
    if steps < FEWEST:
        raise UserError(f"a range test of {steps} steps says nothing; make it {FEWEST} or more")
    found: list[RateTest] = []

    def rehearsal(state: TrainState, run: Run) -> Figures:
        found.append(rising_rates(state, run, steps=steps))
        return {}

    _ = _train_run(config, Path("range-test"), resume=False, rehearsal=rehearsal)
    return found[0]


@dataclass(frozen=True)
class Trained:
    """The figures of a run's last evaluation, and the images on which it was evaluated."""

    figures: Figures
    val_set: ImageSet


def train_run(
    config: Config,
    output: str | Path,
    *,
    resume: bool | str | Path = False,
    dry_run: bool = False,
) -> Trained:
    """Trains a detector (task=classification: a classifier) into the folder `output`.

    `resume` continues the run in `output` from its newest checkpoint (from the beginning if it has none), or from
    the checkpoint given. `dry_run` makes a few steps, reports and writes nothing.

    Raises UserError for a mistake in config, data or folder, and Stopped (a KeyboardInterrupt) if a signal ended the
    run, after saving.
    """
    return _train_run(config, Path(output), resume=resume, rehearsal=rehearse if dry_run else None)


def _train_run(
    config: Config,
    output: Path,
    *,
    resume: bool | str | Path,
    rehearsal: Callable[[TrainState, Run], Figures] | None,
) -> Trained:
    """Trains; or makes everything ready and calls `rehearsal`, and writes nothing."""
    config, dry_run = checked(config), rehearsal is not None
    files, start = RunFiles(output), time.monotonic()
    with join_world(config.train.device) as world, FolderLock(output, "training") as lock:
        check_setup(config, world)
        check_boards(config)
        source, warnings = (None, []) if dry_run else find_resume(output, world, lock, resume=resume)
        task = task_of(config)
        train_set, val_set = task.open_data(config)
        device = choose_device(config.train.device, world)
        check_num_classes(config, train_set)
        config = with_steps(config, len(train_set))
        goal = goal_of(task, config, train_set.class_names)
        if source:
            config = as_resumed(config, source)
        names = train_set.class_names
        state, config, loaded = build_state(config, names, device, world, pretrained=source is None)
        if source:
            warnings += state.restore(source, config, task.fingerprint(train_set), world)
        if not dry_run:
            claim(output, world, lock, resume=resume)
        if not dry_run and world.leads:
            reports = {"train": train_set.report.to_dict(), "val": val_set.report.to_dict()}
            files.begin(config, reports, state.step)
            if source and resume is not True:
                warnings += abandoned(output, state)
        folder = None if dry_run else output
        boards = boards_of(config, output) if folder and world.leads else []
        with RunLog(folder, steps=config.train.steps, speaks=world.leads, boards=boards) as log, StopRequest() as stop:
            usage = Usage(device, start, before=files.written_resources())
            run = Run(
                config, task, output, world, device, train_set, val_set, log, stop, usage, goal, writes=not dry_run
            )
            if source and source.parent.parent == output:
                run.saved_step = state.step
            announce(state, run, source, loaded=loaded, warnings=warnings)
            with deterministic(wanted=config.train.deterministic), enough_memory(device, LESS_MEMORY):
                if rehearsal is not None:
                    return Trained(rehearsal(state, run), val_set)
                try:
                    return Trained(fit(state, run), val_set)
                finally:
                    note_usage(run)
