"""Trains a model from a config: all actions before the first step, in their order."""

from __future__ import annotations

import time
from pathlib import Path

from resdet.config import Config, checked
from resdet.engine.distributed import choose_device, join_world
from resdet.engine.log import RunLog, tensorboard
from resdet.engine.resources import Usage
from resdet.engine.run_folder import Figures, RunFiles
from resdet.engine.signals import StopRequest
from resdet.engine.task.table import task_of
from resdet.engine.train.announce import announce
from resdet.engine.train.build import build_state, check_num_classes, check_setup
from resdet.engine.train.dry_run import rehearse
from resdet.engine.train.loop import fit
from resdet.engine.train.resume import abandoned, as_resumed, claim, find_resume
from resdet.engine.train.saving import note_usage
from resdet.engine.train.state import Run
from resdet.files import FolderLock


def train(
    config: Config,
    output: str | Path,
    *,
    resume: bool | str | Path = False,
    dry_run: bool = False,
) -> Figures:
    """Trains a detector (task=classification: a classifier) into the folder `output`; returns the last evaluation's
    figures.

    `resume` continues the run in `output` from its newest checkpoint (from the beginning if it has none), or from
    the checkpoint given. `dry_run` makes a few steps, reports and writes nothing.

    Raises UserError for a mistake in config, data or folder, and Stopped (a KeyboardInterrupt) if a signal ended the
    run, after saving.
    """
    config = checked(config)
    output, files, start = Path(output), RunFiles(Path(output)), time.monotonic()
    with join_world(config.train.device) as world, FolderLock(output, "training") as lock:
        check_setup(config, world)
        source, warnings = (None, []) if dry_run else find_resume(output, resume, world, lock)
        task = task_of(config)
        train_set, val_set = task.open_data(config)
        device = choose_device(config.train.device, world)
        check_num_classes(config, train_set)
        if source:
            config = as_resumed(config, source)
        names = train_set.class_names
        state, config, loaded = build_state(config, names, device, world, pretrained=source is None)
        if source:
            warnings += state.restore(source, config, task.fingerprint(train_set), world)
        if not dry_run:
            claim(output, resume, world, lock)
        if not dry_run and world.leads:
            reports = {"train": train_set.report.to_dict(), "val": val_set.report.to_dict()}
            files.begin(config, reports, state.step)
            if source and resume is not True:
                warnings += abandoned(output, state)
        folder = None if dry_run else output
        board = tensorboard(output) if config.train.tensorboard and folder and world.leads else None
        with RunLog(folder, steps=config.train.steps, speaks=world.leads, board=board) as log, StopRequest() as stop:
            usage = Usage(device, start, before=files.written_resources())
            run = Run(config, task, output, world, device, train_set, val_set, log, stop, usage, writes=not dry_run)
            if source and source.parent.parent == output:
                run.saved_step = state.step
            announce(state, run, source, loaded=loaded, warnings=warnings)
            if dry_run:
                return rehearse(state, run)
            try:
                return fit(state, run)
            finally:
                note_usage(run)
