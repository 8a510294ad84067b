"""Settings under which a training learns little are told, once, before the first step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from resdet.config import Config, load_config
from resdet.data.batches.loader import open_split
from resdet.engine.train.doubts import endless_warmup, missing_anchors
from resdet.workflows.train import train


def test_a_warm_up_as_long_as_the_training_is_told() -> None:
    config = Config()
    config.train.steps, config.optim.warmup_steps = 1000, 999
    assert endless_warmup(config) == []
    config.optim.warmup_steps = 1000
    (warning,) = endless_warmup(config)
    assert warning.startswith("optim.warmup_steps=1000 is no less than train.steps=1000")
    assert "optim.warmup_steps=100" in warning
    config.optim.schedule = "one_cycle"
    assert endless_warmup(config) == [], "it has a rise of its own"


def test_anchors_that_few_objects_fit_are_told_with_the_sizes_of_both() -> None:
    config = load_config("nano")
    dataset = open_split(config.data, "train")
    assert missing_anchors(config, dataset) == []
    config.model.anchors.sizes = [size * 16 for size in config.model.anchors.sizes]
    (warning,) = missing_anchors(config, dataset)
    assert "anchors overlap only 0% of the objects by half or more" in warning
    assert f"{max(config.model.anchors.sizes):g}" in warning
    assert missing_anchors(config, replace(dataset, crowd=np.ones_like(dataset.crowd))) == []


def test_anchors_are_compared_with_objects_after_resizing() -> None:
    """Anchors and images twice as large fit as before."""
    config = load_config("nano")
    dataset = open_split(config.data, "train")
    config.model.anchors.sizes = [size * 16 for size in config.model.anchors.sizes]
    config.data.augment.test_short_side *= 16
    config.data.augment.max_side *= 16
    assert missing_anchors(config, dataset) == []


def test_a_run_tells_each_doubt_once(tmp_path: Path) -> None:
    config = load_config("nano", overrides=["train.steps=2", "optim.warmup_steps=5", "train.device=cpu"])
    config.model.anchors.sizes = [size * 16 for size in config.model.anchors.sizes]
    _ = train(config, tmp_path / "run", pictures=False)
    log = (tmp_path / "run/log.txt").read_text()
    assert log.count("warning: optim.warmup_steps=5 is no less than train.steps=2") == 1
    assert log.count("warning: anchors overlap only") == 1
