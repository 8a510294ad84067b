"""Precise batch normalization, against means and variances of the layers' own inputs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from resdet.config import Config
from resdet.data.batches.loader import open_split, training_batches
from resdet.engine.distributed import World, batch_norms
from resdet.engine.saved_models import load_model
from resdet.engine.signals import Stopped, StopRequest
from resdet.engine.train import train
from resdet.engine.train.precise_bn import recompute_statistics
from resdet.errors import UserError
from resdet.models.build.detector import build_model
from resdet.structures import Batch

BATCHES = 3


@pytest.fixture
def nano_bn(nano: Config) -> Config:
    nano.model.backbone.norm = "bn"
    return nano


def first_batches(config: Config, count: int) -> list[Batch]:
    batches = training_batches(open_split(config.data, "train"), config, start_step=0, rank=0, world_size=1)
    return [next(batches).batch for _ in range(count)]


def model_of(config: Config) -> nn.Module:
    _ = torch.manual_seed(0)
    return build_model(config.model, 8)


def inputs_of(layer: nn.Module, model: nn.Module, batches: list[Batch]) -> Tensor:
    """What the layer sees when every batch norm uses its batch's own statistics: (positions, channels)."""
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].transpose(0, 1).flatten(1).T))
    with torch.no_grad():
        for batch in batches:
            _ = model.train()(batch)
    hook.remove()
    return torch.cat(seen).double()


@pytest.mark.parametrize("layer", [0, 2])
def test_a_layers_statistics_are_the_mean_and_variance_of_all_its_inputs(nano_bn: Config, layer: int):
    model, batches = model_of(nano_bn), first_batches(nano_bn, BATCHES)
    probe = model_of(nano_bn)
    inputs = inputs_of(batch_norms(probe)[layer], probe, batches)
    assert recompute_statistics(model, batches, expected=BATCHES, world=World())
    norm = batch_norms(model)[layer]
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean, inputs.mean(0).float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, inputs.var(0, correction=0).float(), rtol=1e-4, atol=1e-6)


class OneNorm(nn.Module):
    """A batch norm behind a dropout, on the pixels themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, batch: Batch) -> Tensor:
        return self.norm(self.dropout(batch.images))


def grey_pixels(*values: float) -> Batch:
    """An image of one pixel for each value."""
    images = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, 1, 1)
    return Batch(images, torch.ones(len(values), 2, dtype=torch.int64), None)


def test_the_variance_holds_what_differs_between_batches_and_dropout_is_off():
    """0 and 2, then 10 and 12, 12, 10: a mean of 46 / 6 and, over all six, a variance of 492 / 6 less its square."""
    model = OneNorm().train()
    batches = [grey_pixels(0, 2), grey_pixels(10, 12, 12, 10)]
    assert recompute_statistics(model, batches, expected=2, world=World())
    torch.testing.assert_close(model.norm.running_mean, torch.full((3,), 46 / 6))
    torch.testing.assert_close(model.norm.running_var, torch.full((3,), 492 / 6 - (46 / 6) ** 2))
    assert model.training
    assert model.norm.track_running_stats


@dataclass(frozen=True)
class TwoProcesses(World):
    """This process, and another one with values of its own."""

    other: tuple[float, ...] = ()

    def mean(self, values: Sequence[float]) -> list[float]:
        return [(ours + theirs) / 2 for ours, theirs in zip(values, self.other, strict=True)]


def test_processes_share_their_batches():
    """0 and 2 here, 10, 12, 12 and 10 there: the figures of the test before."""
    model = OneNorm()
    world = TwoProcesses(other=(4.0, *[44.0] * 3, *[488.0] * 3))  # count, sums, sums of squares
    assert recompute_statistics(model, [grey_pixels(0, 2)], expected=1, world=world)
    torch.testing.assert_close(model.norm.running_mean, torch.full((3,), 46 / 6))
    torch.testing.assert_close(model.norm.running_var, torch.full((3,), 492 / 6 - (46 / 6) ** 2))


def test_nothing_but_running_means_and_variances_changes(nano_bn: Config):
    model, batches = model_of(nano_bn).train(), first_batches(nano_bn, 1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    assert recompute_statistics(model, batches, expected=1, world=World())
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"backbone.bn{n}.running_{kind}" for n in (1, 2, 3) for kind in ("mean", "var")}
    assert all(module.training for module in model.modules())
    torch.testing.assert_close(torch.get_rng_state(), generator, rtol=0, atol=0)


def test_too_few_batches_change_nothing(nano_bn: Config):
    model = model_of(nano_bn)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert not recompute_statistics(model, first_batches(nano_bn, 1), expected=2, world=World())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_run_ends_with_precise_statistics_and_the_weights_it_would_have_had(tmp_path: Path, nano_bn: Config):
    _ = train(nano_bn, tmp_path / "plain")
    nano_bn.train.precise_bn = BATCHES
    for run in ("precise", "again"):
        _ = train(nano_bn, tmp_path / run)
    plain, precise, again = (load_model(tmp_path / run)[0].state_dict() for run in ("plain", "precise", "again"))
    assert all(torch.equal(value, again[name]) for name, value in precise.items())
    changed = {name for name, value in precise.items() if not torch.equal(value, plain[name])}
    assert changed == {f"backbone.bn{n}.running_{kind}" for n in (1, 2, 3) for kind in ("mean", "var")}

    probe = load_model(tmp_path / "plain")[0]
    inputs = inputs_of(batch_norms(probe)[0], probe, first_batches(nano_bn, BATCHES))
    torch.testing.assert_close(precise["backbone.bn1.running_mean"], inputs.mean(0).float(), rtol=1e-4, atol=1e-5)
    log = (tmp_path / "precise/log.txt").read_text()
    assert "precise BN: statistics of 3 layers over 3 batches (6 images)" in log


def test_a_signal_during_it_saves_and_the_resumed_run_ends_with_the_same_bits(
    tmp_path: Path, nano_bn: Config, monkeypatch: pytest.MonkeyPatch
):
    nano_bn.train.precise_bn = BATCHES
    _ = train(nano_bn, tmp_path / "whole")
    asked = 0
    following = StopRequest.next

    def next_or_signal(self: StopRequest, items: object) -> object:
        nonlocal asked
        asked += 1
        if asked == nano_bn.train.steps + 2:  # the second batch after the last step
            self.signal_name = "SIGTERM"
        return following(self, items)  # pyright: ignore[reportArgumentType]

    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "next", next_or_signal)
        with pytest.raises(Stopped, match="at step 6, saved"):
            _ = train(nano_bn, tmp_path / "cut")
    assert not (tmp_path / "cut/eval.json").exists()
    metrics = train(nano_bn, tmp_path / "cut", resume=True)
    whole, cut = (load_model(tmp_path / run)[0].state_dict() for run in ("whole", "cut"))
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    assert metrics["bbox/AP"] == json.loads((tmp_path / "whole/eval.json").read_text())["bbox/AP"]


def test_a_model_without_batch_norms_is_refused(tmp_path: Path, nano: Config):
    nano.train.precise_bn = 10
    with pytest.raises(UserError, match=r"train\.precise_bn=10, but no layer .*backbone\.norm=gn.*; use"):
        _ = train(nano, tmp_path / "run")
    assert not (tmp_path / "run").exists()
