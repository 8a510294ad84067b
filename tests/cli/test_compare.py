"""The command, with runs of a few steps in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resdet.cli.main import main

ROOT = Path(__file__).parents[2]
TINY = [str(ROOT / "configs/nano.yaml"), "train.steps=4", "train.device=cpu", "data.shapes.val_images=4"]


def test_a_comparison_trains_fails_on_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One contestant learns, another's loss grows beyond all numbers: the first is kept and reported."""
    output = tmp_path / "compare"
    broken = "nano:optim.lr=1e30,train.grad_clip=null,optim.warmup_steps=0"
    arguments = ["compare", *TINY, "--backbones", "nano", broken, "--output", str(output), "--rounds", "1"]
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert "nano-optim.lr-1e30" in said.err
    assert "failed: step" in said.err
    assert "[1/2] nano-seed0: box AP" in said.out
    content = json.loads((output / "compare.json").read_text())
    (one,) = content["contestants"]
    assert one["prediction"]["images_per_second"] > 0
    assert one["training"]["peak_memory_bytes"] > 2**20
    assert list(content["missing"]) == ["nano-optim.lr-1e30-train.grad_clip-null-optim.warmup_steps-0-seed0"]

    before = (output / "runs/nano-seed0/eval.json").stat().st_mtime_ns
    only = ["compare", *TINY, "--backbones", "nano", "--output", str(output)]
    assert main(only) == 0
    said = capsys.readouterr()
    assert "nano-seed0: finished, box AP" in said.out
    assert "timing predictions" not in said.out, "it was measured before"
    assert (output / "runs/nano-seed0/eval.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_signal_saves_and_the_same_command_goes_on(tmp_path: Path) -> None:
    output = tmp_path / "compare"
    steps = ["train.steps=20000", "train.log_every=1"]
    command = [sys.executable, str(ROOT / "tools/compare.py"), *TINY, *steps, "--backbones", "nano"]
    process = subprocess.Popen([*command, "--output", str(output)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    metrics = output / "runs/nano-seed0/metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert list((output / "runs/nano-seed0/checkpoints").glob("step_*"))
    listed = subprocess.run(
        [*command, "--output", str(output), "--dry-run"], capture_output=True, text=True, check=True
    )
    assert "nano-seed0: interrupted, to go on from step_" in listed.stdout


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--backbones", "nano", "--output", "x"], "no CONFIG given"),
        ([*TINY, "--backbones", "nano", "--seeds", "0", "--output", "x"], "--seeds 0"),
        ([*TINY, "--backbones", "nano", "--rounds", "-1", "--output", "x"], "--rounds -1"),
        ([*TINY, "--backbones", "resnet81", "--output", "x"], "did you mean 'resnet18'"),
        ([*TINY, "--backbones", "nano", "--jobs", "0", "--output", "x"], "--jobs 0"),
        ([*TINY, "--backbones", "nano", "--report-only", "--output", "x"], "no finished run"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str],
    hint: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *arguments]) == 2
    errors = capsys.readouterr().err
    assert hint in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "x").exists()
