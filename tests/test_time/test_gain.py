"""What is added at test time raises or keeps the AP of a trained detector on generated shapes."""

from __future__ import annotations

from pathlib import Path

import pytest

from resdet.config import load_config
from resdet.engine.evaluate_checkpoint import evaluate_checkpoint
from resdet.engine.train import train

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
QUICKSTART = Path(__file__).parents[2] / "configs/quickstart.yaml"
NOISE = 0.01  # what 100 images cannot tell from nothing; docs/he2015.md has figures
VIEWS = "test.augmentation.short_sides=[96, 128, 160]"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gain") / "run"
    overrides = ["train.steps=400", "train.checkpoint_every=400", "data.shapes.val_images=100"]
    metrics = train(load_config(QUICKSTART, overrides=overrides), folder)
    assert (metrics["bbox/AP"] or 0) > 0.3
    return folder


def ap(run: Path, *overrides: str) -> float:
    figure = evaluate_checkpoint(run, overrides=overrides).figures["bbox/AP"]
    assert figure is not None
    return figure


@pytest.mark.parametrize(
    "parts",
    [
        ["test.refinement.nms_iou=0.5"],
        ["test.voting.iou=0.5"],
        ["test.scales=[96, 128, 160, 192]"],
        ["test.augmentation.flip=true"],
        [VIEWS],
    ],
    ids=["refinement", "voting", "maxout", "flip", "views"],
)
def test_a_part_raises_or_keeps_ap(parts: list[str], run: Path) -> None:
    assert ap(run, *parts) > ap(run) - NOISE


def test_together_they_raise_it(run: Path) -> None:
    assert ap(run, VIEWS, "test.voting.iou=0.5") > ap(run) + NOISE
