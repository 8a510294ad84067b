"""Signals where there is nothing to save."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from interruption import terminate_in_evaluation

from resdet.cli.main import main
from resdet.config import Config
from resdet.engine.signals import Stopped
from resdet.engine.train import train


@pytest.mark.parametrize(
    "place",
    [
        "resdet.engine.task.detection.open_split",
        "resdet.workflows.train.draw_run",
        "resdet.workflows.train.write_report",
    ],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_outside_of_the_steps_is_one_line_and_143(
    tmp_path: Path,
    nano_arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: str,
    number: signal.Signals,
):
    monkeypatch.setattr(place, lambda *_, **__: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    assert main(["train", *nano_arguments, "train.steps=1", "--output", str(tmp_path / "run")]) == 143
    assert capsys.readouterr().err.strip() == f"stopped by {number.name}"
    assert signal.getsignal(number) == before


def test_the_figures_of_a_part_of_the_images_are_never_recorded(
    tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch, read_metrics: Any
):
    nano.eval.every = 2
    terminate_in_evaluation(monkeypatch)
    with pytest.raises(Stopped):
        _ = train(nano, tmp_path / "run")
    assert not [line for line in read_metrics(tmp_path / "run") if "bbox/AP" in line]
    assert not (tmp_path / "run/eval.json").exists()
    assert not (tmp_path / "run/best").exists()


def test_a_signal_ends_an_evaluation_of_a_saved_model_without_figures(
    tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    _ = train(nano, tmp_path / "run")
    terminate_in_evaluation(monkeypatch)
    assert main(["evaluate", str(tmp_path / "run"), "--output", str(tmp_path / "again")]) == 143
    assert capsys.readouterr().err.strip().splitlines()[-1] == "stopped by SIGTERM"
    assert not (tmp_path / "again").exists()
