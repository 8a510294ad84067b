"""The localization and detection tracks of ILSVRC, from training to figure, by the shipped configs on a miniature."""

from pathlib import Path
from typing import Any

import pytest

from miniature import write_miniature
from resdet.config import load_config
from resdet.engine.evaluate_checkpoint import evaluate_checkpoint
from resdet.engine.train import train

ROOT = Path(__file__).parents[2]
SHORT = [
    "train={steps: 4, batch_size: 2, log_every: 1, checkpoint_every: 4}",
    "data.augment={short_side: [64], test_short_side: 64}",
    "data.workers=0",
]
LOC = {"loc/top5_error", "loc/top1_error", "loc/top5_class_error", "loc/given_class_error"}


@pytest.mark.parametrize(("name", "figures"), [("miniature_loc", LOC), ("miniature_det", {"ilsvrc/AP"})])
def test_from_training_to_the_figure_of_the_track(tmp_path: Path, name: str, figures: set[str]):
    _ = write_miniature(tmp_path, train=1, val=4, size=64)
    config = load_config(ROOT / f"configs/imagenet/{name}.yaml", overrides=[*SHORT, f"data.root={tmp_path}"])
    metrics: dict[str, Any] = train(config, tmp_path / "run")
    assert figures | {"bbox/AP"} <= set(metrics)
    assert all(0 <= metrics[figure] <= 1 for figure in figures)
    again = evaluate_checkpoint(tmp_path / "run", output=tmp_path / "again").figures
    assert {key: again[key] for key in figures} == {key: metrics[key] for key in figures}
    assert (tmp_path / "again/predictions.json").is_file()
