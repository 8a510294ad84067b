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
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.gpu

STEPS = 20
TRAIN = """
import sys, torch
from resdet.config import load_config
from resdet.engine.train import train
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

def run(name, device, *, steps={steps}, resume=False, deterministic=True):
    torch.use_deterministic_algorithms(deterministic)
    overrides = [f"train.steps={{steps}}", f"train.device={{device}}", "train.log_every=1", "train.checkpoint_every=10",
        "train.amp=off", "data.shapes.train_images=8", "data.shapes.val_images=2", "optim.warmup_steps=2",
        "optim.schedule=constant", "optim.lr=0.02", "model.mask_head={{name: fcn, channels: 8, resolution: 5}}"]
    _ = train(load_config("nano", overrides=overrides), "{folder}/" + name, resume=resume)

run("cpu", "cpu")
run("device", "{device}", deterministic=False)
run("whole", "{device}")
run("parts", "{device}", steps=10)
run("parts", "{device}", resume=True)
"""


@pytest.fixture(scope="module")
def trained(device: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all runs, made in a process of its own, for determinism is a choice of the whole process."""
    folder = tmp_path_factory.mktemp("runs")
    script = TRAIN.format(folder=folder, device=device.type, steps=STEPS)
    environment = {
        **os.environ,
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    return folder


def losses(run: Path) -> list[float]:
    lines: list[dict[str, Any]] = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_twenty_steps_have_the_losses_of_the_cpu(trained: Path) -> None:
    """Rounding errors grow from step to step, because each starts from the weights of the one before."""
    here, there = losses(trained / "cpu"), losses(trained / "device")
    assert len(here) == STEPS
    assert there[0] == pytest.approx(here[0], rel=1e-5)
    assert there == pytest.approx(here, rel=2e-2)


def test_a_resume_ends_with_the_same_bits(trained: Path) -> None:
    assert losses(trained / "whole") == losses(trained / "parts")
    name = f"checkpoints/step_{STEPS:08d}/model.safetensors"
    whole, parts = load_file(trained / "whole" / name), load_file(trained / "parts" / name)
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
