"""Images of odd sizes: a pyramid pads them to whole cells, a single map takes them as they are, alone or in a batch."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from resdet.config import BoxHeadConfig, Config, ModelConfig, NeckConfig
from resdet.data.batches.collate import padded_shape, size_divisor
from resdet.data.batches.loader import evaluation_batches, training_batches
from resdet.data.sets.coco import CocoDataset
from resdet.models.backbones import BACKBONES
from resdet.models.backbones.resnet import BasicBlock, ResNet
from resdet.models.build.detector import build_model
from resdet.predict.predictor import Predictor
from resdet.structures import Batch

TINY = partial(ResNet, BasicBlock, (1, 1, 1, 1), stem_channels=8, c2_channels=16)
SINGLE_MAPS = ["c4", "dc5"]


def a_model(neck: str) -> ModelConfig:
    config = ModelConfig(neck=NeckConfig(name=neck, channels=16), box_head=BoxHeadConfig(fc_dim=16))
    config.backbone.name, config.backbone.frozen_stages = "tiny", 0
    if neck == "c4":
        config.box_head = BoxHeadConfig(resolution=14)
    return config


@pytest.fixture(autouse=True)
def tiny_net(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "tiny", TINY)


@pytest.mark.parametrize(
    ("neck", "sizes", "padded"),
    [
        ("fpn", [(190, 230)], (192, 256)),
        ("pafpn", [(33, 64)], (64, 64)),
        ("c4", [(190, 230)], (190, 230)),
        ("dc5", [(190, 230), (200, 101)], (200, 230)),
        ("c4", [(5, 333)], (16, 333)),  # one cell of a map of stride 16 at least
    ],
)
def test_a_batch_is_as_large_as_its_layout_needs(
    neck: str, sizes: list[tuple[int, int]], padded: tuple[int, int]
) -> None:
    assert padded_shape(sizes, size_divisor(a_model(neck))) == padded


@pytest.mark.parametrize("neck", SINGLE_MAPS)
def test_prediction_of_an_image_is_that_of_its_pixels_alone(neck: str) -> None:
    _ = torch.manual_seed(0)
    config = a_model(neck)
    model = build_model(config, 3).eval()
    image = np.random.default_rng(0).integers(0, 256, (95, 115, 3), dtype=np.uint8)
    found = Predictor(model, short_side=95, max_side=115, size_divisor=size_divisor(config))(image)
    itself = model.predict(Batch(torch.from_numpy(image).permute(2, 0, 1)[None], torch.tensor([[95, 115]])))
    assert itself.valid.any()
    torch.testing.assert_close(torch.from_numpy(found.scores), itself.scores[0][itself.valid[0]])
    torch.testing.assert_close(torch.from_numpy(found.boxes), itself.boxes[0][itself.valid[0]], atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize(("neck", "multiple"), [("c4", 1), ("dc5", 1), ("fpn", 32)])
def test_evaluation_and_training_pad_as_prediction_does(
    config: Config, dataset: CocoDataset, neck: str, multiple: int
) -> None:
    config = replace(config, model=a_model(neck))
    config.data.augment.test_short_side = config.data.augment.max_side = 75
    config.data.augment.short_side, config.data.workers = [75], 0
    wanted = 75 if multiple == 1 else 96
    batches = [next(iter(evaluation_batches(dataset, config, rank=0, world_size=1)))]
    batches.append(next(training_batches(dataset, config, start_step=0, rank=0, world_size=1)))
    assert [tuple(loaded.batch.images.shape[2:]) for loaded in batches] == [(wanted, wanted)] * 2
