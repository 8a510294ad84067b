"""A step on a GPU waits for nothing: the device leaves out an update that is not finite, and its result is read later.

Here the results of a CPU are read as late as those of a GPU, so that what depends on the order is shown without one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exact_resume import assert_resume_is_exact, logged
from test_divergence import poison_batches, poison_weights, with_pixel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from resdet.config import Config, EMAConfig, OptimConfig
from resdet.engine.checkpoint import MODEL, checkpoint_path, read_model_file
from resdet.engine.train import train
from resdet.engine.train.ema import average_of, follow_selected
from resdet.engine.train.optim import build_optimizer, set_learning_rate
from resdet.engine.train.optimizers import load_optimizer, step_if
from resdet.engine.train.step import Result, apply_gradients
from resdet.engine.train.unread import Unread
from resdet.errors import UserError
from waits import Waits

FUSED = ("sgd", "adam", "adamw", "adagrad")


class Copied:
    """In the place of a CUDA event; the values of a CPU are there at once."""

    def synchronize(self) -> None:
        pass


@pytest.fixture
def read_late(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Results are read as late as on a GPU. Returns the steps that were unread when the next gradients were there."""
    unread: list[int] = []

    def of(names: tuple[str, ...], finite: Tensor, values: Tensor) -> Result:
        return Result(names, finite, values, Copied())

    def noted(result: Any, kept: Any, lr: float) -> Unread:
        unread.append(kept.step)
        return Unread(result, kept, lr)

    monkeypatch.setattr(Result, "of", of)
    monkeypatch.setattr("resdet.engine.train.update.Unread", noted)
    return unread


def two_layers() -> nn.Module:
    _ = torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Conv2d(4, 2, 1))


def updated(optim: OptimConfig, gradients: list[float | None]) -> tuple[list[Tensor], Any]:
    """The weights and the optimizer's state after updates by gradients of these values; None: one is not finite."""
    model = two_layers()
    optimizer = build_optimizer(model, optim)
    for value in gradients:
        set_learning_rate(optimizer, 0.1)
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 1.0 if value is None else value)
        if value is None:
            next(model.parameters()).grad[0] = math.nan  # pyright: ignore[reportOptionalSubscript]
        step_if(torch.tensor(value is not None), optimizer)
    return [parameter.detach() for parameter in model.parameters()], optimizer.state_dict()["state"]


@pytest.mark.parametrize("fused", [True, None])
@pytest.mark.parametrize("name", FUSED)
def test_an_update_that_is_not_finite_leaves_weights_and_state_as_they_were(name: str, *, fused: bool | None) -> None:
    """Wherever it comes, also as the first one: the rest is as if it had not been."""
    optim = OptimConfig(name=name, fused=fused, weight_decay=0.01)
    expected = updated(optim, [0.5, -2.0, 1.0])
    for gradients in ([0.5, -2.0, None, 1.0], [None, 0.5, None, None, -2.0, 1.0], [0.5, -2.0, 1.0, None]):
        weights, state = updated(optim, gradients)
        assert all(torch.equal(mine, its) for mine, its in zip(weights, expected[0], strict=True))
        for number, values in expected[1].items():
            for key, value in values.items():
                assert torch.equal(state[number][key], value), (number, key)


@pytest.mark.parametrize("name", FUSED)
def test_a_fused_update_is_the_plain_one_up_to_rounding(name: str) -> None:
    fused, plain = (updated(OptimConfig(name=name, fused=fused), [0.5, -2.0, 1.0])[0] for fused in (True, None))
    torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-6)


def test_an_optimizer_without_a_fused_form_is_one_line() -> None:
    with pytest.raises(UserError, match=r"optim.fused=true: optim.name=rmsprop has no fused form; set it to null"):
        _ = build_optimizer(two_layers(), OptimConfig(name="rmsprop", fused=True))
    with pytest.raises(UserError, match=r"optim.arguments.fused has a key of its own: optim.fused"):
        _ = build_optimizer(two_layers(), OptimConfig(arguments={"fused": True}))


def test_a_state_that_another_form_saved_is_continued_in_the_form_of_this_run() -> None:
    saved = build_optimizer(two_layers(), OptimConfig(name="adam", fused=True))
    for fused in (True, None):
        optimizer = build_optimizer(two_layers(), OptimConfig(name="adam", fused=fused))
        load_optimizer(optimizer, saved.state_dict())
        assert {group["fused"] for group in optimizer.param_groups} == {fused}


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize(("optim", "asks"), [
    (OptimConfig(), False), (OptimConfig(momentum=0.0), False), (OptimConfig(name="adamw"), False),
    (OptimConfig(name="rmsprop"), True),
])  # fmt: skip
def test_the_end_of_a_step_asks_a_gpu_for_nothing_if_its_optimizer_is_fused(
    monkeypatch: pytest.MonkeyPatch, optim: OptimConfig, clip: float | None, *, asks: bool
) -> None:
    """With tensors that have a shape and a device but no values; the first update is made, to begin the state."""
    monkeypatch.setattr(Result, "of", lambda *values: Result(*values, copied=None))
    with FakeTensorMode(), Waits(left_out="_fused_sgd_") as asking:
        model = nn.Linear(3, 2, device="cuda")
        optimizer = build_optimizer(model, optim)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        _ = optimizer.step()
        asking.seen.clear()
        losses = {"loss": torch.ones((), device="cuda")}
        try:
            result = apply_gradients(losses, model, optimizer, lr=0.1, grad_clip=clip)
            assert result.values.device.type == result.finite.device.type == "cuda"
        except DataDependentOutputException as error:
            asking.seen.append(str(error))
    assert bool(asking.seen) == asks, asking.seen


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(50))
        self.register_buffer("running_mean", torch.randn(50))
        self.register_buffer("seen", torch.tensor(3))


def test_an_average_chosen_by_the_device_is_that_of_timm_or_stays() -> None:
    model, ema = Scale(), EMAConfig(decay=0.9)
    expected, ours = average_of(model, ema), average_of(model, ema)
    assert expected is not None
    assert ours is not None
    for step, made in enumerate([True, True, False, True, False], start=1):
        with torch.no_grad():
            _ = model.weight.add_(torch.randn(50))
            _ = model.seen.add_(1)  # pyright: ignore[reportCallIssue]
            _ = model.running_mean.fill_(0.1 if made else math.nan)  # pyright: ignore[reportCallIssue]
        if made:
            expected.update(model, step=step)
        follow_selected(ours, model, step=step, made=torch.tensor(made))
        for name, value in expected.module.state_dict().items():
            assert torch.equal(ours.module.state_dict()[name], value), (step, name)


@pytest.fixture
def sparse_log(nano: Config) -> Config:
    """A step in which nothing has to be read is one that is not logged, saved or evaluated."""
    nano.train.steps, nano.train.log_every, nano.train.checkpoint_every = 12, 4, 6
    nano.optim.fused = True
    return nano


def run_of(config: Config, folder: Path) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    _ = train(config, folder)
    return logged(folder), read_model_file(checkpoint_path(folder, config.train.steps) / MODEL).weights


def test_reading_late_changes_no_bit_of_the_run(
    tmp_path: Path, sparse_log: Config, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    sparse_log.train.ema = EMAConfig()
    log, weights = run_of(sparse_log, tmp_path / "at once")
    unread = request.getfixturevalue("read_late")
    late_log, late_weights = run_of(sparse_log, tmp_path / "late")
    assert unread == list(range(12))
    assert late_log == log
    assert late_weights.keys() == weights.keys()
    assert all(torch.equal(late_weights[name], weights[name]) for name in weights)


def test_a_run_that_is_read_late_goes_on_exactly(tmp_path: Path, sparse_log: Config, read_late: list[int]) -> None:
    sparse_log.train.steps = 6
    sparse_log.optim.name = "adamw"
    _ = assert_resume_is_exact(sparse_log, tmp_path, at=(2, 3))


def test_a_loss_that_is_read_late_names_its_own_step_and_keeps_its_own_batch(
    tmp_path: Path, sparse_log: Config, monkeypatch: pytest.MonkeyPatch, read_late: list[int]
) -> None:
    sparse_log.train.checkpoint_every = 1000
    poison_batches(monkeypatch, 5, with_pixel(math.nan))
    with pytest.raises(UserError, match=r"^step 5: loss_\w+ is nan") as error:
        _ = train(sparse_log, tmp_path / "run")
    kept = json.loads((tmp_path / "run/bad_step.json").read_text())
    batch = torch.load(tmp_path / "run/bad_step_rank0.pt", weights_only=True)
    assert read_late == [0, 1, 2, 3, 4, 5], "it was read when the gradients of step 6 were there, before their update"
    assert kept["step"] == batch["step"] == 5
    assert f"likely the data: image id {batch['image_ids'][1]}" in str(error.value)
    assert [image["image_id"] for image in kept["images"]] == batch["image_ids"]
    assert not kept["findings"]["bad_weights"], "neither this step nor the one after it has changed the weights"


def test_a_poisoned_weight_is_named_late(
    tmp_path: Path, sparse_log: Config, monkeypatch: pytest.MonkeyPatch, read_late: list[int]
) -> None:
    def change(weights: dict[str, Tensor]) -> None:
        _ = weights["rpn.head.conv.0.0.weight"][0, 0, 0, 0].fill_(math.nan)

    poison_weights(monkeypatch, 2, change)
    with pytest.raises(UserError, match=r"^step 2: .*an update before this one wrote rpn.head.conv.0.0.weight"):
        _ = train(sparse_log, tmp_path / "run")
    assert (
        "step 2: the first module whose output is not finite: rpn.head.conv.0.0\n"
        in (tmp_path / "run/log.txt").read_text()
    )


def with_bad_gradients(at: set[int]) -> Callable[..., Any]:
    """`summed_gradients` of a run, with a NaN in the gradients of these steps."""
    from resdet.engine.train import update

    real, numbers = update.summed_gradients, iter(range(1000))

    def poisoned(forwards: Any, model: nn.Module, *rest: Any, **named: Any) -> Any:
        losses = real(forwards, model, *rest, **named)
        if next(numbers) in at:
            gradient = next(parameter.grad for parameter in model.parameters() if parameter.grad is not None)
            _ = gradient.flatten()[0].fill_(math.nan)
        return losses

    return poisoned


@pytest.mark.parametrize("late", [False, True])
def test_gradients_that_are_not_finite_are_left_out_and_counted(
    tmp_path: Path, sparse_log: Config, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, *, late: bool
) -> None:
    if late:
        _ = request.getfixturevalue("read_late")
    monkeypatch.setattr("resdet.engine.train.update.summed_gradients", with_bad_gradients({0, 5, 6}))
    log, weights = run_of(sparse_log, tmp_path / "run")
    said = (tmp_path / "run/log.txt").read_text()
    for step, row in ((0, 1), (5, 1), (6, 2)):
        assert f"step {step}: the gradient is not finite; update left out ({row} in a row)" in said
    assert said.count("update left out") == 3
    assert all(value.isfinite().all() for value in weights.values())
    assert [line["step"] for line in log if "loss" in line] == [4, 8, 12]


def test_ten_bad_gradients_in_a_row_end_the_run_also_late(
    tmp_path: Path, sparse_log: Config, monkeypatch: pytest.MonkeyPatch, read_late: list[int]
) -> None:
    monkeypatch.setattr("resdet.engine.train.update.summed_gradients", with_bad_gradients(set(range(1, 12))))
    with pytest.raises(UserError, match=r"step 10: 10 gradients in a row were not finite"):
        _ = train(sparse_log, tmp_path / "run")


def test_the_images_of_a_batch_are_bytes_until_the_device_has_them(nano: Config) -> None:
    """Four times fewer bytes to copy than floats; the model normalizes them."""
    from resdet.data.batches.loader import evaluation_batches, open_split, training_batches
    from resdet.engine.distributed import to_device

    dataset = open_split(nano.data, "train")
    batches: Iterator[Any] = training_batches(dataset, nano, start_step=0, rank=0, world_size=1)
    for loaded in (next(batches), next(iter(evaluation_batches(dataset, nano, rank=0, world_size=1)))):
        assert to_device(loaded.batch, replace(nano.train), torch.device("cpu")).images.dtype == torch.uint8
