"""A detector with random weights that finds something everywhere, and a few generated images."""

from pathlib import Path

import pytest
import torch

from resdet.config import Config, load_config
from resdet.data.batches.loader import open_split
from resdet.data.sets.coco import CocoDataset
from resdet.engine.checkpoint import model_metadata, save_checkpoint
from resdet.models.build.detector import build_model
from resdet.models.rcnn import RCNN
from resdet.predict.predictor import Predictor

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config() -> Config:
    overrides = ("data.shapes.train_images=8", "data.shapes.val_images=4", "eval.batch_size=1")
    return load_config(ROOT / "configs/nano.yaml", overrides=overrides)


@pytest.fixture
def dataset(config: Config) -> CocoDataset:
    return open_split(config.data, "val")


@pytest.fixture
def model(config: Config) -> RCNN:
    _ = torch.manual_seed(0)
    return build_model(config.model, 8)


@pytest.fixture
def predictor(model: RCNN) -> Predictor:
    names = [f"class {label}" for label in range(8)]
    return Predictor(
        model, class_names=names, category_ids=range(1, 9), short_side=64, max_side=64, size_divisor=32, batch_size=2
    )


@pytest.fixture
def saved(model: RCNN, config: Config, tmp_path: Path) -> Path:
    """The model as a checkpoint."""
    names = tuple(f"class {label}" for label in range(8))
    metadata = model_metadata(config, names, tuple(range(1, 9)), model.normalization)
    return save_checkpoint(tmp_path / "run", step=1, weights=model.state_dict(), metadata=metadata, state={})
