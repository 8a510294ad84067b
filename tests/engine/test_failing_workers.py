"""A worker that is killed and an image that breaks cost no step."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from resdet.config import Config
from resdet.engine.checkpoint import checkpoints
from resdet.engine.train import train
from resdet.errors import UserError

ROOT = Path(__file__).parents[2]


def children(process: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def test_a_killed_worker_ends_the_run_in_one_line_and_no_step_is_lost(
    tmp_path: Path, nano_arguments: list[str], read_metrics: Any
):
    run = tmp_path / "run"
    endless = ["train.steps=100000", "train.checkpoint_every=100000", "data.workers=2", "--output", str(run)]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tools/train.py"), *nano_arguments, *endless],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (run / "metrics.jsonl").exists() or len((run / "metrics.jsonl").read_text().splitlines()) < 3:
        time.sleep(0.05)
        assert process.poll() is None, process.communicate()
    os.kill(children(process.pid)[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 2
    step = read_metrics(run)[-1]["step"]
    (line,) = errors.strip().splitlines()
    assert "was ended by SIGKILL, perhaps because memory ran out" in line
    assert line.endswith(f"step {step} is saved, go on from it with --resume")
    assert checkpoints(run)[-1].name == f"step_{step:08d}"


def test_an_image_that_breaks_during_a_run_loses_no_step(tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch):
    from resdet.data.augment import samples

    real, calls = samples.read_image, iter(range(1000))

    def breaks(*arguments: Any, **options: Any) -> Any:
        if next(calls) >= 8:  # two images a step: the first of step 5
            raise UserError("7.png: is truncated")
        return real(*arguments, **options)

    monkeypatch.setattr(samples, "read_image", breaks)
    with pytest.raises(UserError, match=r"^7\.png: is truncated; step 4 is saved, go on from it with --resume$"):
        _ = train(nano, tmp_path / "run")
    assert checkpoints(tmp_path / "run")[-1].name == "step_00000004"
