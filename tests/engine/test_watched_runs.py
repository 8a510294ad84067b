"""What one switches on to look at a training: determinism, a trace of the profiler, the learning-rate range test."""

import json
import math
from pathlib import Path

import pytest
import torch
from exact_resume import assert_resume_is_exact, logged
from PIL import Image

import resdet
from resdet.cli.main import main
from resdet.config import Config
from resdet.engine.train import train
from resdet.engine.train.deterministic import deterministic
from resdet.engine.train.rate_test import smoothed, summary
from resdet.errors import UserError


def test_a_deterministic_run_has_the_same_numbers_and_leaves_torch_as_it_was(tmp_path: Path, nano: Config) -> None:
    _ = train(nano, tmp_path / "plain")
    nano.train.deterministic = True
    full = assert_resume_is_exact(nano, tmp_path)
    assert not torch.are_deterministic_algorithms_enabled()
    assert logged(full) == logged(tmp_path / "plain"), "on a CPU they are the same operators"


def test_an_operator_without_a_deterministic_form_is_one_line() -> None:
    words = r"train.deterministic=true: put_ has no deterministic form"
    with pytest.raises(UserError, match=words), deterministic(wanted=True):
        raise RuntimeError("put_ does not have a deterministic implementation, but you set ...")
    with pytest.raises(RuntimeError, match="another"), deterministic(wanted=True):
        raise RuntimeError("another error")
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_trace_has_the_steps_that_were_asked_for(tmp_path: Path, nano: Config) -> None:
    nano.train.profile = 2
    _ = train(nano, tmp_path / "run")
    events = json.loads((tmp_path / "run/trace.json").read_text())["traceEvents"]
    steps = [event["name"] for event in events if event.get("name", "").startswith("ProfilerStep")]
    assert sorted(set(steps)) == ["ProfilerStep#3", "ProfilerStep#4"]
    assert any("conv" in event.get("name", "") for event in events)
    assert "2 steps are traced in" in (tmp_path / "run/log.txt").read_text()


def test_a_run_too_short_for_a_trace_says_so(tmp_path: Path, nano: Config) -> None:
    nano.train.profile, nano.train.steps = 5, 2
    _ = train(nano, tmp_path / "run")
    assert "warning: train.profile=5: there were too few steps to trace, 2" in (tmp_path / "run/log.txt").read_text()


def test_the_average_is_corrected_for_its_beginning() -> None:
    assert smoothed([3.0, 3.0, 3.0]) == pytest.approx([3, 3, 3])
    assert smoothed([1.0, 2.0])[1] == pytest.approx((0.1 * 0.9 * 1 + 0.1 * 2) / (1 - 0.81))


def test_the_suggestion_is_where_the_average_falls_most_steeply() -> None:
    """A loss that falls as an arc around step 30 and explodes at step 60."""
    losses = [3 - math.atan((i - 30) / 3) if i < 60 else 3.0 + 2 ** (i - 60) for i in range(70)]
    rates = [10 ** (-6 + i / 10) for i in range(70)]
    test = summary(rates, losses)
    assert test.suggestion is not None
    assert 10 ** (-3.2) < test.suggestion < 10 ** (-2.2)
    assert 30 < test.rates.index(test.lowest) <= 60
    assert summary(rates, [float(i) for i in range(70)]).suggestion is None


def test_find_lr_writes_a_plot_and_suggests_from_the_command_line_and_from_python(
    tmp_path: Path, nano_arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "rates"
    assert main(["train", *nano_arguments, "--find-lr", "40", "--output", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "suggestion, where it falls most steeply: optim.lr=" in printed
    assert {path.name for path in folder.iterdir()} == {"lr_range.json", "lr_range.png"}
    with Image.open(folder / "lr_range.png") as image:
        assert image.width > 300
    written = json.loads((folder / "lr_range.json").read_text())
    config, *overrides = nano_arguments
    test = resdet.find_learning_rate(config, tmp_path / "again", overrides=overrides, steps=40)
    assert list(test.losses) == written["losses"], "a pure function of the config"
    assert test.rates[0] == 1e-6
    assert test.suggestion == written["suggestion"]


def test_find_lr_with_a_resume_or_too_few_steps_is_an_error(
    tmp_path: Path, nano_arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for more in (["--resume"], ["--dry-run"]):
        assert main(["train", *nano_arguments, "--find-lr", *more, "--output", str(tmp_path / "x")]) == 2
        assert "--find-lr trains from the beginning" in capsys.readouterr().err
    assert main(["train", *nano_arguments, "--find-lr", "3", "--output", str(tmp_path / "x")]) == 2
    assert "a range test of 3 steps says nothing" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
