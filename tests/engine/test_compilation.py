"""Compiled predictions are the eager ones up to rounding; a compiled training counts its graphs.

In processes of their own, without the type-checking import hook. The compiler takes minutes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# Detections above a score of 0, so that near ties at the end of the list are left out of the comparison.
PREDICTION = """
import sys
import numpy as np
import resdet
from resdet.config import load_config
from resdet.engine.train import train

run = sys.argv[1]
overrides = ["train.steps=30", "data.shapes.val_images=4", "train.device=cpu", "model.box_head.score_threshold=0.0"]
_ = train(load_config("nano", overrides=overrides), run)
image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
eager = resdet.load(run, device="cpu")(image)
predictor = resdet.load(run, device="cpu", overrides=["test.compile=true"])
for _ in range(2):
    compiled = predictor(image)
    np.testing.assert_allclose(compiled.scores, eager.scores, rtol=1e-4, atol=1e-5)
    near = np.abs(compiled.boxes - eager.boxes).max(axis=1) < 0.01
    assert len(eager.boxes) and near.mean() >= 0.9, near.mean()
figures = [resdet.evaluate(run, overrides=rest)["bbox/AP"] for rest in ([], ["test.compile=true"])]
assert abs(figures[0] - figures[1]) < 1e-3, figures
"""

TRAINING = """
import sys
from resdet.config import load_config
from resdet.engine.train import train

overrides = ["train.steps=6", "train.log_every=1", "data.shapes.train_images=8", "data.shapes.val_images=2",
    "train.device=cpu", "data.augment.short_side=[48,64]", "data.augment.max_side=80", "data.shape_buckets=4",
    "train.compile=true"]
_ = train(load_config("nano", overrides=overrides), sys.argv[1])
"""


def run_script(script: str, folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_compiled_predictions_and_figures_are_the_eager_ones(tmp_path: Path) -> None:
    run_script(PREDICTION, tmp_path / "run")


def test_a_compiled_training_says_how_many_graphs_its_shapes_needed(tmp_path: Path) -> None:
    run_script(TRAINING, tmp_path / "run")
    (line,) = [line for line in (tmp_path / "run/log.txt").read_text().splitlines() if "train.compile: " in line]
    graphs, shapes = (int(word) for word in line.split() if word.isdigit())
    assert 1 <= graphs <= 4
    assert 1 <= shapes <= 4
