"""`resdet serve` as a process: it says where it listens, answers, and stops at a signal."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import torch

from resdet.cli.main import main
from resdet.config import load_config
from resdet.engine.checkpoint import model_metadata, save_checkpoint
from resdet.models.build.detector import build_model

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    config = load_config(ROOT / "configs/nano.yaml")
    _ = torch.manual_seed(0)
    model = build_model(config.model, 1)
    metadata = model_metadata(config, ("cat",), (1,), model.normalization)
    return save_checkpoint(tmp_path / "run", step=1, weights=model.state_dict(), metadata=metadata, state={})


def test_it_answers_until_sigterm(checkpoint: Path) -> None:
    command = [sys.executable, "-m", "resdet", "serve", str(checkpoint), "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving at http://127.0.0.1:"), line
        with urllib.request.urlopen(f"{line.split()[2]}health", timeout=120) as answer:
            assert json.load(answer)["status"] == "ok"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, errors) == (143, "stopped by SIGTERM\n")


def test_mistakes_are_one_line(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        cases = {
            "no such file or folder": ["nowhere"],
            "cannot be listened at": [str(checkpoint), "--port", port],
            "--batch 0 must be at least 1": [str(checkpoint), "--batch", "0"],
            "give up to 10000 milliseconds": [str(checkpoint), "--port", "70000"],
        }
        for message, arguments in cases.items():
            assert main(["serve", *arguments]) == 2
            said = capsys.readouterr().err
            assert message in said
            assert said.count("\n") == 1
