"""Training on a GPU: the losses of the CPU, and the same bits again after a resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.gpu

STEPS = 20
TRAIN = """
import sys, torch
from resdet.config import load_config
from resdet.engine.train import train
torch.use_deterministic_algorithms({deterministic})
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
overrides = ["train.steps={steps}", "train.log_every=1", "train.checkpoint_every=10", "train.amp=off",
    "data.shapes.train_images=8", "data.shapes.val_images=2", "train.device={device}", "optim.warmup_steps=2",
    "optim.schedule=constant", "optim.lr=0.02", "model.mask_head={{name: fcn, channels: 8, resolution: 5}}"]
_ = train(load_config("nano", overrides=overrides), "{run}", resume={resume})
"""


def train(
    run: Path, device: torch.device, *, steps: int = STEPS, resume: bool = False, deterministic: bool = True
) -> None:
    """Trains in a process of its own, for determinism is a choice of the whole process."""
    script = TRAIN.format(run=run, device=device.type, steps=steps, resume=resume, deterministic=deterministic)
    environment = {**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]


def losses(run: Path) -> list[float]:
    lines: list[dict[str, Any]] = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_twenty_steps_have_the_losses_of_the_cpu(tmp_path: Path, device: torch.device) -> None:
    """Rounding errors grow from step to step, because each starts from the weights of the one before."""
    train(tmp_path / "here", torch.device("cpu"))
    train(tmp_path / "there", device, deterministic=False)
    here, there = losses(tmp_path / "here"), losses(tmp_path / "there")
    assert len(here) == STEPS
    assert there[0] == pytest.approx(here[0], rel=1e-5)
    assert there == pytest.approx(here, rel=2e-2)


def test_a_resume_ends_with_the_same_bits(tmp_path: Path, device: torch.device) -> None:
    train(tmp_path / "whole", device)
    train(tmp_path / "parts", device, steps=10)
    train(tmp_path / "parts", device, resume=True)
    name = f"checkpoints/step_{STEPS:08d}/model.safetensors"
    assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
