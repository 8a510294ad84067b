"""Finds the beginning of a run: step 0 of a new folder, or a checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from resdet.config import Config
from resdet.engine import checkpoint
from resdet.engine.distributed import World
from resdet.engine.run_folder import MODEL, RunFiles
from resdet.engine.train.state import TrainState
from resdet.errors import UserError
from resdet.files import writing
from resdet.folder_lock import FolderLock
from resdet.models.build.conventions import as_in
from resdet.text import first_few


def find_resume(
    output: Path, world: World, lock: FolderLock, *, resume: bool | str | Path
) -> tuple[Path | None, list[str]]:
    """The checkpoint from which to continue (None: start at step 0), and messages about it.

    `resume` is the value of `--resume`: absent (False), without a value (True), or a checkpoint. Raises UserError if
    `output` contains anything that this run would overwrite, or if another training is at work there; a run is locked.
    """
    check_folder(output, resume=resume)
    if RunFiles(output).hold_a_run:
        claim(output, world, lock, resume=resume)
    if resume is False:
        return None, []
    if resume is not True:
        return sound_checkpoint(Path(resume)), []
    if world.leads and output.is_dir():
        checkpoint.finish_leftovers(output)
    _ = world.from_lead(None)
    if not checkpoint.checkpoints(output):
        return None, [f"{output} holds no checkpoint yet: training begins at step 0"]
    return checkpoint.newest_checkpoint(output)


def check_folder(output: Path, *, resume: bool | str | Path) -> None:
    """Raises UserError if `output` contains anything that this run would overwrite."""
    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: is a file; --output takes a folder")
    files = RunFiles(output)
    if files.hold_a_run and not resume:
        raise UserError(f"{output}: already holds a run; continue it with --resume or choose another --output")
    if foreign := files.foreign():
        raise UserError(
            f"{output}: is not empty and not a run of resdet (it holds {first_few(foreign)}); choose another --output"
        )


def claim(output: Path, world: World, lock: FolderLock, *, resume: bool | str | Path) -> None:
    """Locks the folder for this training, in all its processes or none. Raises UserError if another one has it, or has
    written a run into it since it was looked at.
    """
    problem = None
    if world.leads:
        try:
            lock.take()
            check_folder(output, resume=resume)
        except UserError as error:
            problem = error
    world.raise_together(problem)


def sound_checkpoint(path: Path) -> Path:
    """The checkpoint of a path that is a checkpoint or a run. Raises UserError if it is damaged."""
    file, _ = checkpoint.find_model_file(path)
    if fault := checkpoint.damage(file.parent):
        raise UserError(f"{path}: cannot be resumed: {fault}; give a folder such as checkpoints/step_00000500")
    return file.parent


def as_resumed(config: Config, source: Path) -> Config:
    """The config with the conventions of the run that is continued, the steps that were fitted to its time, and the
    memory format that was found for it.
    """
    saved, train = checkpoint.read_model_file(source / MODEL).config, config.train
    if train.minutes is not None and train.minutes == saved.train.minutes:
        train = replace(train, steps=saved.train.steps)
    if train.channels_last is None:
        train = replace(train, channels_last=saved.train.channels_last)
    return replace(config, model=as_in(config.model, saved.model), train=train)


def abandoned(output: Path, state: TrainState) -> list[str]:
    """Renames the checkpoints of an attempt that is not continued, and reports it. The best checkpoint is the one of
    the earlier steps.
    """
    best = checkpoint.checkpoint_path(output, state.best_step)
    with writing(output, "make room in it, or choose another --output"):
        names = checkpoint.set_aside(output, after=state.step)
        if names and state.best is not None and best.is_dir():
            RunFiles(output).write_best(best)
    if not names:
        return []
    return [f"{output} goes on from step {state.step}: its later checkpoints are set aside as {first_few(names)}"]
