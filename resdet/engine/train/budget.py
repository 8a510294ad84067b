"""A time budget (`train.minutes`): the number of steps, and with it the schedule, is fitted to the time once.

The first steps are measured, with their waits for data; then `train.steps` becomes the number of steps that fill the
budget at their pace, and is recorded. From there on the run is like any other: a pure function of its step, which a
resume continues exactly. Evaluations and checkpoints are not part of the budget.
"""

from __future__ import annotations

import time
from dataclasses import replace

from resdet.engine.train.state import Run, TrainState

FEWEST_STEPS = 10  # measured, after the first one, which starts the workers and fills caches
LEAST_SHARE, LARGEST_SHARE = 0.02, 0.2  # of the budget, which is measured at least and at most


class Budget:
    """Measures steps until it can say how many of them fill the budget, in seconds."""

    def __init__(self, seconds: float) -> None:
        self._budget = seconds
        self._begin = self._last = time.monotonic()
        self._second = self._last  # when the first step was done
        self._made = 0

    def after_step(self, *, now: bool = False) -> int | None:
        """To be called after each step: the number of steps that the whole budget holds, counted from the first one;
        None as long as too few are measured, unless it is needed now.
        """
        self._last = time.monotonic()
        self._made += 1
        if self._made == 1 and not now:
            self._second = self._last
            return None
        spent, measured = self._last - self._begin, max(1, self._made - 1)
        enough = now or (measured >= FEWEST_STEPS and spent >= LEAST_SHARE * self._budget)
        if not enough and spent < LARGEST_SHARE * self._budget:
            return None
        pace = (self._last - self._second) / measured
        return self._made + max(0, int((self._budget - spent) / pace))


def budget_of(state: TrainState, run: Run) -> Budget | None:
    """The budget of a run whose steps are still to be fitted to it; a run that was resumed before measures again."""
    minutes = run.config.train.minutes
    return None if minutes is None or state.fitted else Budget(60 * minutes)


def fit_to_time(state: TrainState, run: Run, budget: Budget) -> None:
    """Sets and records `train.steps` when enough is measured, at the latest at the step where the config would end.
    Every process must call this after each step.
    """
    steps = run.world.from_lead(budget.after_step(now=state.step >= run.config.train.steps))
    if steps is None:
        return
    steps = max(state.step, steps)
    state.fitted = True
    run.config = replace(run.config, train=replace(run.config.train, steps=steps))
    if run.world.leads:
        run.files.record(run.config)
    run.log.expect(steps)
    run.log.say(f"train.minutes={run.config.train.minutes:g}: train.steps={steps}, at the pace of {state.step} steps")
