"""One training step of a run: the next batch, its learning rate, and the messages about failed steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from torch import nn

from resdet.data.batches.loader import ImageInfo, LoadedBatch
from resdet.engine.distributed import autocast, average_statistics, to_device
from resdet.engine.train.optim import learning_rate
from resdet.engine.train.state import Run, TrainState
from resdet.engine.train.step import LossNotFinite, Step, training_step
from resdet.errors import UserError
from resdet.text import first_few

MOST_SKIPPED = 10  # consecutive updates with a gradient that is not finite


def update(state: TrainState, run: Run, losses_of: nn.Module, loaded: LoadedBatch) -> dict[str, float]:
    """Makes update number `state.step`; returns its losses by name, their sum `loss`, `lr` and `grad_norm`.

    An update with a gradient that is not finite is skipped. Raises UserError for a loss that is not finite, and for too
    many consecutive skipped updates.
    """
    config, lr = run.config, learning_rate(state.step, run.config.optim, run.config.train)
    run.note_unreadable(loaded.unreadable.values())
    batch = to_device(loaded.batch, config.train, run.device)
    try:
        step = training_step(
            partial(losses_of, batch),
            state.model,
            state.optimizer,
            lr=lr,
            grad_clip=config.train.grad_clip,
            precision=autocast(config.train, run.device),
            world=run.world,
        )
    except LossNotFinite as error:
        raise refused(error, state, run, loaded.images) from None
    average_statistics(state.model, run.world)
    count_skipped(step, state, run)
    state.step += 1
    if step.made and state.ema is not None:
        state.ema.update(state.model, step=state.step)
    return {**step.losses, "loss": sum(step.losses.values()), "lr": lr, "grad_norm": step.grad_norm}


def refused(error: LossNotFinite, state: TrainState, run: Run, images: Sequence[ImageInfo]) -> UserError:
    """The error for a loss that is not finite, with the images of the batch, which are also written into the run."""
    everywhere = [image for share in run.world.gather(tuple(images)) for image in share]
    if run.writes and run.world.leads:
        run.files.write_bad_step(
            {
                "step": state.step,
                "losses": {name: value if math.isfinite(value) else str(value) for name, value in error.losses.items()},
                "images": [{"image_id": image.image_id, "file_name": image.file_name} for image in everywhere],
            }
        )
    where = f"; {run.files.bad_step} names the images" if run.writes else "; it came from the images"
    return UserError(
        f"step {state.step}: {error}; the weights are unchanged since the step before{where}"
        f" (image ids {first_few([image.image_id for image in everywhere])}); lower optim.lr or"
        " lengthen optim.warmup_steps"
    )


def count_skipped(step: Step, state: TrainState, run: Run) -> None:
    """Warns about a skipped update. Raises UserError if too many consecutive updates were skipped."""
    if step.made:
        state.skipped = 0
        return
    state.skipped += 1
    run.log.warn(f"step {state.step}: the gradient is not finite; update left out ({state.skipped} in a row)")
    if state.skipped >= MOST_SKIPPED:
        raise UserError(
            f"step {state.step}: {MOST_SKIPPED} gradients in a row were not finite; lower optim.lr or set train.amp=off"
        )
