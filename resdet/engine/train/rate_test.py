"""The learning-rate range test: the loss while the rate grows (Smith 2017, arXiv 1506.01186, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from resdet.engine.distributed import to_device
from resdet.engine.train.optim import peak_learning_rate
from resdet.engine.train.sharded import prepared
from resdet.engine.train.state import Run, TrainState
from resdet.engine.train.step import LossNotFinite
from resdet.engine.train.update import computed
from resdet.errors import UserError

LOWEST, HIGHEST = 1e-6, 10.0  # values of optim.lr
DIVERGED = 4.0  # times the lowest smoothed loss
SMOOTHING = 0.9  # of the loss before, with the correction of its beginning
FEWEST = 10  # steps


@dataclass(frozen=True)
class RateTest:
    """`rates` are values of optim.lr, rising; `losses` the loss at each, `smoothed` its running average.

    `suggestion` is the rate at which the average falls most steeply, None where it never falls; `lowest` the rate at
    which it is lowest, beyond which training becomes unstable.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestion: float | None
    lowest: float


def rising_rates(state: TrainState, run: Run, *, steps: int) -> RateTest:
    """Makes up to `steps` updates with rising rates, and ends where the loss diverges. Nothing is written.

    `state` is changed. Every process must call this.
    """
    config, world = run.config, run.world
    losses_of = prepared(state, run)
    batches = run.task.training_batches(run.train_set, config, start_step=0, rank=world.rank, world_size=world.size)
    scale = peak_learning_rate(config.optim, config.train) / config.optim.lr if config.optim.lr else 1.0
    losses: list[float] = []
    rates = [LOWEST * (HIGHEST / LOWEST) ** (i / (steps - 1)) for i in range(steps)]
    for rate, loaded in zip(rates, batches, strict=False):
        try:
            batch = to_device(loaded.batch, config.train, run.device)
            step = computed(state, run, losses_of, batch, rate * scale).read()
        except LossNotFinite:
            break
        losses.append(sum(step.losses.values()))
        averages = smoothed(losses)
        if not step.made or averages[-1] > DIVERGED * min(averages):
            break
        state.step += 1
    if len(losses) < FEWEST:
        raise UserError(f"the loss is not finite at optim.lr={rates[len(losses)]:.2g} already; resdet train says why")
    return summary(rates[: len(losses)], losses)


def smoothed(losses: Sequence[float]) -> list[float]:
    """The exponential average up to each loss, corrected for its beginning (Kingma & Ba 2015, section 3)."""
    averages: list[float] = []
    average = 0.0
    for number, loss in enumerate(losses, start=1):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        averages.append(average / (1 - SMOOTHING**number))
    return averages


def summary(rates: Sequence[float], losses: Sequence[float]) -> RateTest:
    """The test's result. The steepest fall is looked for up to the lowest average, over two steps."""
    averages = smoothed(losses)
    lowest = min(range(len(averages)), key=averages.__getitem__)
    slopes = {i: averages[i + 1] - averages[i - 1] for i in range(1, lowest)}
    steepest = min(slopes, key=slopes.__getitem__) if slopes else 0
    falls = bool(slopes) and slopes[steepest] < 0
    suggestion = float(f"{rates[steepest]:.2g}") if falls else None
    return RateTest(tuple(rates), tuple(losses), tuple(averages), suggestion, rates[lowest])
