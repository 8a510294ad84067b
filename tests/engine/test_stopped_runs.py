"""A signal stops a training without losing a step, and the resumed run ends with the same bits."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from exact_resume import weights_hash
from interruption import terminate_in_evaluation

from resdet.config import Config
from resdet.engine.checkpoint import checkpoints
from resdet.engine.signals import Stopped
from resdet.engine.train import train
from resdet.engine.train.state import TrainState
from resdet.engine.train.update import update

ROOT = Path(__file__).parents[2]
LONG = ("train.steps=100000", "data.workers=1")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_before_leaving_and_the_resumed_run_ends_with_the_same_bits(
    tmp_path: Path, nano: Config, full_run: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
):
    def interrupted(state: TrainState, *rest: Any) -> dict[str, float]:
        record = update(state, *rest)
        if state.step == 4:
            os.kill(os.getpid(), number)
        return record

    monkeypatch.setattr("resdet.engine.train.loop.update", interrupted)
    with pytest.raises(Stopped, match=f"stopped by {number.name} at step 4, saved; go on .* --resume"):
        _ = train(nano, tmp_path / "run")
    assert checkpoints(tmp_path / "run")[-1].name == "step_00000004"
    monkeypatch.undo()
    _ = train(nano, tmp_path / "run", resume=True)
    assert weights_hash(tmp_path / "run", 6) == weights_hash(full_run, 6)


def test_a_signal_to_the_whole_process_group_loses_no_step_and_exits_143(
    tmp_path: Path, nano_arguments: list[str], read_metrics: Any
):
    """As from a terminal or a batch system: the data workers are hit too."""
    run = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tools/train.py"), *nano_arguments, *LONG, "--output", str(run)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        if (run / "metrics.jsonl").exists() and len((run / "metrics.jsonl").read_text().splitlines()) >= 3:
            break
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 143, errors
    last = read_metrics(run)[-1]["step"]
    assert checkpoints(run)[-1].name == f"step_{last:08d}"
    assert errors.strip() == f"stopped by SIGTERM at step {last}, saved; go on with the same command and --resume"


def test_a_signal_during_an_evaluation_saves_and_the_resumed_run_evaluates(
    tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch, read_metrics: Any
):
    nano.eval.every = 2
    terminate_in_evaluation(monkeypatch)
    with pytest.raises(Stopped, match=r"stopped by SIGTERM at step 2"):
        _ = train(nano, tmp_path / "run")
    assert checkpoints(tmp_path / "run")[-1].name == "step_00000002"
    monkeypatch.undo()
    _ = train(nano, tmp_path / "run", resume=True)
    assert [line["step"] for line in read_metrics(tmp_path / "run") if "bbox/AP" in line] == [2, 4, 6]
