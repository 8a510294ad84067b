"""Saves a run: the files of a checkpoint, the reaction to disk errors, and the save after a signal."""

from __future__ import annotations

from typing import Any

from resdet.engine import checkpoint
from resdet.engine.signals import Stopped
from resdet.engine.train.state import Run, TrainState
from resdet.engine.train.update import settle
from resdet.errors import UserError

MOST_FAILED_SAVES = 3  # consecutive failures


def save(state: TrainState, run: Run) -> None:
    """Saves a checkpoint; a disk error is a warning, and a UserError if it is repeated."""
    snapshot = state.snapshot(run.data, run.world)
    state.gather()
    unreadable = sorted(set().union(*run.world.gather(run.unreadable)))
    failure = None
    if run.world.leads:
        run.note_unreadable(unreadable)  # other processes do not speak
        failure = write(state, run, snapshot, unreadable)
    failure = run.world.from_lead(failure)
    if failure is None:
        run.failed_saves.clear()
        run.saved_step = state.step
        return
    run.failed_saves.append(failure)
    newest = [path.name for path in checkpoint.checkpoints(run.folder)][-1:] or ["none"]
    message = f"step {state.step}: checkpoint not saved: {failure}; the newest is still {newest[0]}"
    if len(run.failed_saves) >= MOST_FAILED_SAVES or state.is_over(run.config):
        raise UserError(f"{message}; make room in {run.folder} and go on with --resume")
    run.log.warn(f"{message}; training goes on")


def write(state: TrainState, run: Run, snapshot: dict[str, Any], unreadable: list[str]) -> str | None:
    """Writes a checkpoint and the files that refer to it; returns the reason if that failed."""
    names = run.task.saved_classes(run.train_set)
    try:
        path = checkpoint.save_checkpoint(
            run.folder,
            step=state.step,
            weights=state.scored.state_dict(),
            metadata=checkpoint.model_metadata(run.config, *names, state.scored.normalization),
            state=snapshot,
        )
        if state.best_step == state.step:
            run.files.write_best(path)
        if unreadable:
            run.files.write_unreadable(unreadable)
        run.files.write_resources(run.usage.so_far())
        checkpoint.prune_checkpoints(run.folder, step=state.step, keep=run.config.train.keep_checkpoints)
    except OSError as error:
        return f"{error.strerror or error}"
    return None


def leave(state: TrainState, run: Run, problem: UserError | None = None) -> Stopped:
    """Saves the state if it is not saved yet; returns the exception to raise after a signal. Raises UserError after a
    `problem` of this process or another.
    """
    _ = settle(state, run)
    if run.saved_step != state.step:
        save(state, run)
    problems = [f"{each}; " for each in run.world.gather(None if problem is None else str(problem)) if each]
    if run.saved_step != state.step:
        reason = f"not saved: {run.failed_saves[-1]}; make room in {run.folder}"
        raise UserError(f"{''.join(problems[:1])}stopped at step {state.step}, {reason}")
    if problems:
        run.world.raise_together(UserError(f"{problems[0]}step {state.step} is saved, go on from it with --resume"))
    name = run.stop.signal_name or "a signal to another process"
    return Stopped(f"stopped by {name} at step {state.step}, saved; go on with the same command and --resume")


def note_usage(run: Run) -> None:
    """Writes the resources of the training into the run, even after an error; a disk error is a warning."""
    if not run.world.leads:
        return
    try:
        run.files.write_resources(run.usage.so_far())
    except OSError as error:
        run.log.warn(f"{run.files.resources}: cannot be written ({error.strerror or error})")
