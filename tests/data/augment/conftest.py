"""The coloured data set, opened by a config of small sizes."""

from __future__ import annotations

from pathlib import Path

import pytest

from coloured import write_coloured
from resdet.config import Config, load_config
from resdet.data.batches.loader import open_split
from resdet.data.sets.coco import CocoDataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coloured(tmp_path_factory.mktemp("coloured"))


@pytest.fixture
def config(folder: Path) -> Config:
    files = [f"data.{split}.{key}={folder / value}" for split in ("train", "val") for key, value in
             (("annotations", "a.json"), ("images", "."))]  # fmt: skip
    sizes = ["data.augment.short_side=[120]", "data.augment.max_side=240", "train.batch_size=2", "data.workers=0"]
    return load_config(overrides=[*files, *sizes, "model.mask_head={}", "data.mask_resolution=32"])


@pytest.fixture
def dataset(config: Config) -> CocoDataset:
    return open_split(config.data, "val")
