"""The schedules of the learning rate: shares of the peak as closed forms of the step, so that a resume needs no state.

Each function takes the number of the update, counted from 0, the number of all updates, and the keys of `optim.`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from resdet.config import OptimConfig

Schedule = Callable[[int, int, OptimConfig], float]


def step(number: int, steps: int, optim: OptimConfig) -> float:
    """Multiplied by `gamma` at each milestone, a fraction of all steps (torch's MultiStepLR)."""
    return optim.gamma ** sum(number >= round(milestone * steps) for milestone in optim.milestones)


def cosine(number: int, steps: int, optim: OptimConfig) -> float:
    """Half a cosine from 1 to `final_factor` (Loshchilov & Hutter 2017, equation 5; torch's CosineAnnealingLR)."""
    return _half_cosine(1.0, optim.final_factor, min(1.0, number / steps))


def poly(number: int, steps: int, optim: OptimConfig) -> float:
    """The share of steps that is left, to the power `power`, from 1 to `final_factor` (torch's PolynomialLR)."""
    left = max(0.0, 1 - number / steps) ** optim.power
    return optim.final_factor + (1 - optim.final_factor) * left


def one_cycle(number: int, steps: int, optim: OptimConfig) -> float:
    """From `start_factor` to 1 over the share `rise` of the steps, then to `final_factor`, both half a cosine (Smith &
    Topin 2018; torch's OneCycleLR, without its change of the momentum).
    """
    top, last = optim.rise * steps - 1, steps - 1
    if number <= top and top > 0:
        return _half_cosine(optim.start_factor, 1.0, number / top)
    return _half_cosine(1.0, optim.final_factor, min(1.0, max(0.0, (number - top) / (last - top))))


def restarts(number: int, steps: int, optim: OptimConfig) -> float:
    """`cycles` cosines that fill all steps, each `cycle_growth` times as long as the one before (Loshchilov & Hutter
    2017; torch's CosineAnnealingWarmRestarts).
    """
    lengths = [optim.cycle_growth**cycle for cycle in range(optim.cycles)]
    position, start = number / steps * sum(lengths), 0.0
    for length in lengths:
        # a step within rounding of a restart is the restart
        if position < start + length - 1e-9 * sum(lengths):
            return _half_cosine(1.0, optim.final_factor, max(0.0, position - start) / length)
        start += length
    return optim.final_factor


def constant(number: int, steps: int, optim: OptimConfig) -> float:
    """Always the peak."""
    return 1.0


def _half_cosine(first: float, last: float, part: float) -> float:
    return last + (first - last) * (0.5 * (1 + math.cos(math.pi * part)))


SCHEDULES: dict[str, Schedule] = {
    "step": step,
    "cosine": cosine,
    "poly": poly,
    "one_cycle": one_cycle,
    "restarts": restarts,
    "constant": constant,
}
WITHOUT_WARMUP = {"one_cycle"}  # they begin with a rise of their own
