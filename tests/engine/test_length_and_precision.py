"""How long a run is (`train.epochs`), and float16 with a loss scale: both exact on resume."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from exact_resume import assert_resume_is_exact
from torch import nn
from torch.amp.grad_scaler import GradScaler

from resdet.config import Config, load_config
from resdet.config.diff import check_same_run
from resdet.engine.checkpoint import checkpoint_path, read_state
from resdet.engine.distributed import autocast
from resdet.engine.run_folder import RunFiles
from resdet.engine.train import train
from resdet.engine.train.build import with_steps
from resdet.engine.train.step import apply_gradients, summed_gradients


def steps_of(epochs: float, images: int, batch: int) -> int:
    return with_steps(
        load_config(overrides=[f"train.epochs={epochs}", f"train.batch_size={batch}"]), images
    ).train.steps


def test_epochs_are_turned_into_steps() -> None:
    assert steps_of(12, 117266, 16) == 12 * 7330
    assert steps_of(3, 8, 2) == 12
    assert steps_of(2, 9, 2) == 10, "the last batch of an epoch is filled up"
    assert steps_of(0.5, 8, 2) == 2
    assert steps_of(0.001, 8, 2) == 1
    assert with_steps(load_config(overrides=["train.steps=7"]), 8).train.steps == 7


def test_a_run_of_epochs_records_its_steps_and_goes_on_exactly(tmp_path: Path, nano: Config) -> None:
    nano.train.epochs = 1.25
    run = assert_resume_is_exact(nano, tmp_path)
    written = load_config(run / "config.yaml").train
    assert (written.steps, written.epochs) == (5, 1.25)
    assert "train.epochs=1.25 of 8 images: train.steps=5" in (run / "log.txt").read_text()
    nano.train.epochs = 1.5
    _ = train(nano, run, resume=True)
    assert "warning: train.epochs was 1.25 and is now 1.5" in (run / "log.txt").read_text()
    assert load_config(run / "config.yaml").train.steps == 6


def test_a_loss_scale_does_not_change_the_update_and_is_halved_by_an_overflow() -> None:
    """The gradient of w^2/2 is w. Scaled by 2^120 it overflows float32 where w is 2^10."""
    model, exact = nn.Linear(1, 1, bias=False), torch.autocast("cpu", enabled=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    scaler = GradScaler("cpu", init_scale=2.0**120)

    def step(weight: float) -> tuple[bool, float, float]:
        _ = model.weight.data.fill_(weight)
        losses = summed_gradients([lambda: {"loss": (model.weight**2).sum() / 2}], model, exact, scaler=scaler)
        made = apply_gradients(losses, model, optimizer, lr=0.5, grad_clip=None, scaler=scaler).read()
        return made.made, model.weight.item(), scaler.get_scale()

    assert step(4.0) == (True, 2.0, 2.0**120)
    assert step(1024.0) == (False, 1024.0, 2.0**119)


def test_fp16_computes_in_float16(nano: Config) -> None:
    nano.train.amp = "fp16"
    with autocast(nano.train, torch.device("cpu")):
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.float16


def test_a_resumed_run_in_fp16_has_the_same_loss_scale(tmp_path: Path, nano: Config) -> None:
    """The scale is 2^16 at first, and is halved where a gradient overflows."""
    nano.train.amp, nano.train.steps = "fp16", 4
    run = assert_resume_is_exact(nano, tmp_path, at=(1, 3))
    scaler = read_state(checkpoint_path(run, 4))["scaler"]
    assert math.log2(scaler["scale"]) == int(math.log2(scaler["scale"])) <= 16
    assert scaler["_growth_tracker"] > 0, "the last update was made"


@pytest.mark.parametrize("amp", ["off", "fp16"])
def test_a_run_may_change_its_precision_with_a_warning(tmp_path: Path, nano: Config, amp: str) -> None:
    nano.train.steps, nano.train.amp = 2, "fp16" if amp == "off" else "off"
    _ = train(nano, tmp_path / "run")
    nano.train.steps, nano.train.amp = 3, amp  # pyright: ignore[reportAttributeAccessIssue]
    _ = train(nano, tmp_path / "run", resume=True)
    assert f"and is now {amp}" in (tmp_path / "run/log.txt").read_text()


def test_a_length_is_said_as_it_was_given() -> None:
    assert load_config(overrides=["train.epochs=12"]).train.length == "12 epochs"
    assert load_config(overrides=["train.minutes=1.5"]).train.length == "1.5 minutes"
    assert load_config(overrides=["train.steps=1234567"]).train.length == "1234567 steps"


def test_a_comparison_takes_runs_of_epochs(tmp_path: Path, nano: Config) -> None:
    """Its plan knows the epochs, the folder of a finished run also the steps."""
    nano.train.epochs = 1.0
    _ = train(nano, tmp_path / "run")
    assert nano.train.steps != 4, "the plan's"
    written = load_config(tmp_path / "run/config.yaml")
    check_same_run(written, replace(nano, model=written.model), tmp_path)  # with the conventions of its weights
    assert RunFiles(tmp_path / "run").is_finished(nano)
