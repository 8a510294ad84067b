"""The average of the weights: its formula by the pencil, exact on resume, and what everything after training reads."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from exact_resume import assert_resume_is_exact
from test_distributed import in_processes
from torch import nn

from resdet.config import Config, EMAConfig
from resdet.engine.checkpoint import MODEL, checkpoint_path, read_model_file, read_state
from resdet.engine.evaluate_checkpoint import evaluate_checkpoint
from resdet.engine.train import train
from resdet.engine.train.ema import average_of


class Scale(nn.Module):
    running_mean: torch.Tensor
    seen: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.0]))
        self.register_buffer("running_mean", torch.tensor([0.0]))
        self.register_buffer("seen", torch.tensor(0))


def averages(ema: EMAConfig, values: Sequence[float]) -> list[float]:
    model, found = Scale(), []
    average = average_of(model, ema)
    assert average is not None
    for step, value in enumerate(values, start=1):
        for tensor in (model.weight.data, *model.buffers()):
            _ = tensor.fill_(value)
        average.update(model, step=step)
        copied = average.module
        assert isinstance(copied, Scale)
        assert copied.running_mean.item() == copied.weight.item(), "batch statistics are averaged as the weights are"
        assert copied.seen.item() == int(value), "a counter is copied"
        found.append(copied.weight.item())
    return found


def test_an_update_keeps_the_decay_of_the_average() -> None:
    """The first update copies: 8. Then 3/4 * 8 + 1/4 * 4 = 7, and 3/4 * 7 + 1/4 * 0."""
    assert averages(EMAConfig(decay=0.75, warmup=False), [8, 4, 0]) == [8, 7, 5.25]


def test_the_warm_up_keeps_little_of_the_first_averages() -> None:
    """Update 8 keeps 1 - 8^(-2/3) = 3/4 of what it was; until then the weights are 0 and the average is 0 too."""
    assert averages(EMAConfig(decay=0.9999), [0] * 7 + [4])[-1] == pytest.approx(1)
    assert averages(EMAConfig(decay=0.5), [0] * 7 + [4])[-1] == pytest.approx(2), "the decay is the upper limit"


def test_without_the_key_there_is_no_average() -> None:
    assert average_of(Scale(), None) is None


@pytest.fixture
def averaged(nano: Config) -> Config:
    nano.train.ema = EMAConfig()
    nano.model.backbone.norm = "bn"
    nano.eval.every = 2
    return nano


def test_a_resumed_run_ends_with_the_same_average(tmp_path: Path, averaged: Config) -> None:
    _ = assert_resume_is_exact(averaged, tmp_path, at=(1, 3))


def test_the_average_is_saved_and_evaluated_and_the_trained_weights_are_kept_for_a_resume(
    tmp_path: Path, averaged: Config
) -> None:
    figures = train(averaged, tmp_path / "run")
    assert evaluate_checkpoint(tmp_path / "run").figures == figures
    end = checkpoint_path(tmp_path / "run", 6)
    saved, trained = read_model_file(end / MODEL).weights, read_state(end)["trained_weights"]
    assert saved.keys() == trained.keys()
    for name in ("backbone.conv2.weight", "backbone.bn2.running_mean"):
        assert not torch.equal(saved[name], trained[name])
    averaged.train.ema = None
    _ = train(averaged, tmp_path / "plain")
    plain = read_model_file(checkpoint_path(tmp_path / "plain", 6) / MODEL).weights
    assert all(torch.equal(plain[name], trained[name]) for name in plain), "the average does not change the training"


def test_precise_statistics_are_those_of_the_average(tmp_path: Path, averaged: Config) -> None:
    averaged.train.precise_bn = 2
    assert train(averaged, tmp_path / "run") == evaluate_checkpoint(tmp_path / "run").figures


def test_two_processes_average_as_one_does(tmp_path: Path, nano_arguments: list[str]) -> None:
    config, *rest = [*nano_arguments, "train.ema.decay=0.9", "train.batch_size=4"]
    done = in_processes(2, [config, *rest, "--output", str(tmp_path / "two")])
    assert [process.returncode for process in done] == [0, 0], done[0].stderr + done[1].stderr
    (alone,) = in_processes(1, [config, *rest, "--output", str(tmp_path / "one")])
    assert alone.returncode == 0
    one, two = (read_model_file(checkpoint_path(tmp_path / run, 6) / MODEL).weights for run in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-5)
