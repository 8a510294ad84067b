"""One training step of a run: the next batch, its learning rate, and the messages about failed steps.

A GPU computes while Python goes on, and to read a value is to wait for it. So the result of an update is read one step
late there, when the gradients of the next one are being computed and before they are applied: the weights are still
those that the update left, so that a step that was not finite can be examined. On a CPU it is read at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from resdet.data.batches.collate import ImageInfo, LoadedBatch
from resdet.engine.compilation import whole_cache
from resdet.engine.distributed import autocast, average_statistics, to_device
from resdet.engine.train.accumulate import forwards_of, unsynced
from resdet.engine.train.bad_step import examined
from resdet.engine.train.divergence import Past
from resdet.engine.train.ema import follow
from resdet.engine.train.optim import learning_rate
from resdet.engine.train.state import Run, TrainState
from resdet.engine.train.step import LossNotFinite, Result, Step, apply_gradients, summed_gradients
from resdet.engine.train.unread import Kept, Unread
from resdet.errors import UserError
from resdet.structures import Batch
from resdet.text import first_few

MOST_SKIPPED = 10  # consecutive updates with a gradient that is not finite


def update(state: TrainState, run: Run, losses_of: nn.Module, loaded: LoadedBatch) -> dict[str, float]:
    """Makes update number `state.step`; returns the figures of the last update whose result was read (`settle`).

    An update with a gradient that is not finite is skipped. Raises UserError as `settle`.
    """
    lr = learning_rate(state.step, run.config.optim, run.config.train)
    run.note_unreadable(loaded.unreadable.values())
    state.dropped += sum(loaded.dropped.values())
    batch = to_device(loaded.batch, run.config.train, run.device)
    run.shapes.add((*batch.images.shape, 0 if batch.targets is None else batch.targets.labels.shape[-1]))
    with whole_cache():
        result = computed(state, run, losses_of, batch, lr)
    kept = Kept(state.step, losses_of, batch, loaded.images, autocast(run.config.train, run.device))
    run.unread = Unread(result, kept, lr)
    if result.copied is None or not run.record:
        _ = settle(state, run)
    average_statistics(state.model, run.world)
    state.step += 1
    if state.ema is not None:
        follow(state.ema, state.model, step=state.step, made=result.finite)
    return run.record


def computed(state: TrainState, run: Run, losses_of: nn.Module, batch: Batch, lr: float) -> Result:
    """The losses of a batch, their gradients, and the update with the learning rate `lr`."""
    train, precision = run.config.train, autocast(run.config.train, run.device)
    forwards = forwards_of(losses_of, state.model, batch, train.accumulate, precision=precision, world=run.world)
    losses = summed_gradients(forwards, state.model, precision, unsynced=unsynced(losses_of), scaler=state.scaler)
    _ = settle(state, run)  # the update before: a GPU has finished it, or has these gradients to compute meanwhile
    return apply_gradients(
        losses,
        state.model,
        state.optimizer,
        lr=lr,
        grad_clip=train.grad_clip,
        world=run.world,
        scaler=state.scaler,
    )


def settle(state: TrainState, run: Run) -> dict[str, float]:
    """Reads the result of the last update, if that was not done yet, and returns its figures: its losses by name, their
    sum `loss`, `lr` and `grad_norm`. Every process must call this.

    Raises UserError for a loss that is not finite, and for too many consecutive skipped updates.
    """
    last, run.unread = run.unread, None
    if last is None:
        return run.record
    kept = last.kept
    try:
        step = last.result.read()
    except LossNotFinite as error:
        causes, written = examined("loss", error.losses, state, run, kept)
        problem = refused(error, kept.step, run, kept.images, causes[0], written=written)
        run.world.raise_together(problem)
        raise problem from None  # for the type checker: the line before has raised
    count_skipped(step, state, run, kept)
    run.updates += step.made
    loss = sum(step.losses.values())
    if step.made:
        ids = tuple(image.image_id for image in kept.images)
        run.recent.append(Past(kept.step, loss, step.grad_norm, ids))
    run.record = {**step.losses, "loss": loss, "lr": last.lr, "grad_norm": step.grad_norm}
    return run.record


def refused(
    error: LossNotFinite, step: int, run: Run, images: Sequence[ImageInfo], cause: str, *, written: bool
) -> UserError:
    """The error for a loss that is not finite, with the images of the batch, which bad_step.json has if it is
    `written`.
    """
    everywhere = [image.image_id for share in run.world.gather(tuple(images)) for image in share]
    where = f"; {run.files.bad_step} names the images" if written else "; it came from the images"
    return UserError(
        f"step {step}: {error}; the weights are unchanged since the step before{where}"
        f" (image ids {first_few(everywhere)}); likely {cause}"
    )


def count_skipped(step: Step, state: TrainState, run: Run, kept: Kept) -> None:
    """Warns about a skipped update, and examines the first one; with train.amp=fp16, whose loss scale is found by such
    updates, only the one before the error. Raises UserError if too many consecutive updates were skipped.
    """
    if step.made:
        state.skipped = 0
        return
    state.skipped += 1
    run.log.warn(f"step {kept.step}: the gradient is not finite; update left out ({state.skipped} in a row)")
    too_many = state.skipped >= MOST_SKIPPED
    if too_many or not (run.examined or state.scaler):
        run.examined = True
        causes, _ = examined("gradient", step.losses, state, run, kept)
        if too_many:
            line = f"step {kept.step}: {MOST_SKIPPED} gradients in a row were not finite; likely {causes[0]}"
            run.world.raise_together(UserError(line))
