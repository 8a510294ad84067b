"""The schedules of the learning rate: by the pencil, and equal to torch's schedulers at every step."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from resdet.config import OptimConfig, TrainConfig
from resdet.engine.train.optim import learning_rate
from resdet.engine.train.schedules import SCHEDULES

STEPS = 70


def shares(steps: int = STEPS, **keys: Any) -> list[float]:
    """The share of the peak at each step, and after the last one."""
    optim, train = (
        OptimConfig(lr=1.0, reference_batch=1, warmup_steps=0, **keys),
        TrainConfig(steps=steps, batch_size=1),
    )
    return [learning_rate(step, optim, train) for step in range(steps + 1)]


def torchs(make: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler], steps: int = STEPS) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        _ = optimizer.step()
        scheduler.step()
    return rates


ROWS: dict[str, tuple[dict[str, Any], Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]]] = {
    "step": (
        {"milestones": [0.5, 0.8], "gamma": 0.3},
        lambda o: lr_scheduler.MultiStepLR(o, [35, 56], gamma=0.3),
    ),
    "cosine": ({"final_factor": 0.1}, lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS, eta_min=0.1)),
    "poly": ({"power": 2.5}, lambda o: lr_scheduler.PolynomialLR(o, STEPS, power=2.5)),
    "one_cycle": (
        {"rise": 0.3, "start_factor": 0.05, "final_factor": 0.0005},
        lambda o: lr_scheduler.OneCycleLR(
            o, 1.0, STEPS, pct_start=0.3, div_factor=20, final_div_factor=100, cycle_momentum=False
        ),
    ),
    "restarts": (  # 10 + 20 + 40 steps
        {"cycles": 3, "cycle_growth": 2.0, "final_factor": 0.2},
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 10, 2, eta_min=0.2),
    ),
    "constant": ({}, lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_is_torchs(name: str) -> None:
    keys, make = ROWS[name]
    assert shares(schedule=name, **keys)[:-1] == pytest.approx(torchs(make), rel=1e-9, abs=1e-12)


def test_poly_is_the_power_of_what_is_left() -> None:
    of = shares(4, schedule="poly", power=2.0)
    assert of == pytest.approx([1, 9 / 16, 4 / 16, 1 / 16, 0])
    assert shares(4, schedule="poly", power=2.0, final_factor=0.2)[2] == pytest.approx(0.2 + 0.8 / 4)


def test_cosine_ends_at_its_final_factor() -> None:
    assert shares(2, schedule="cosine", final_factor=0.5) == pytest.approx([1, 0.75, 0.5])


def test_one_cycle_rises_to_the_peak_and_falls() -> None:
    """The peak is the last step of the first half, 4 of 10; halfway up and down it is the mean of both ends."""
    of = shares(10, schedule="one_cycle", rise=0.5, start_factor=0.2, final_factor=0.0)
    assert (of[0], of[2], of[4], of[9]) == pytest.approx((0.2, 0.6, 1.0, 0.0))
    assert max(of) == of[4]


def test_one_cycle_has_no_other_warm_up() -> None:
    keys: dict[str, Any] = {"lr": 1.0, "reference_batch": 1, "schedule": "one_cycle"}
    rates = {
        w: learning_rate(3, OptimConfig(warmup_steps=w, **keys), TrainConfig(steps=9, batch_size=1)) for w in (0, 5)
    }
    assert rates[0] == rates[5]


def test_restarts_begin_again_at_the_peak_and_end_with_the_training() -> None:
    """Three cycles of 1, 2 and 4 sevenths of 28 steps begin at steps 0, 4 and 12."""
    of = shares(28, schedule="restarts", cycles=3, cycle_growth=2.0)
    assert [step for step, share in enumerate(of) if share == 1] == [0, 4, 12]
    assert of[8] == pytest.approx(0.5), "the middle of the second"
    assert of[28] == 0
    assert len([s for s in shares(30, schedule="restarts", cycles=3, cycle_growth=1.0) if s == 1]) == 3


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3, 1000])
def test_every_share_is_between_zero_and_one(name: str, steps: int) -> None:
    assert all(0 <= share <= 1 for share in shares(steps, schedule=name))
