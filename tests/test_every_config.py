"""Every file in configs/ is built, makes one step on generated images and predicts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from resdet.config import load_config
from resdet.data.batches.loader import open_split, training_batches
from resdet.engine.train.optim import build_optimizer
from resdet.models.build.detector import build_model

ROOT = Path(__file__).parents[1] / "configs"
DETECTORS = sorted(path for path in ROOT.rglob("*.yaml") if path.parent.name not in ("cifar", "imagenet"))
QUICK = [path for path in DETECTORS if path.parent == ROOT or path.name == "vgg16_coco.yaml"]
CONFIGS = [path if path in QUICK else pytest.param(path, marks=pytest.mark.slow) for path in DETECTORS]
SMALL = [
    "model.backbone.weights=null",  # which would have to be downloaded
    "data.train={name: shapes, annotations: null, images: null}",
    "data.shapes={train_images: 4, val_images: 2, size: 64, max_objects: 3, seed: 0}",
    "data.augment={short_side: [64], test_short_side: 64}",
    "model.rpn={proposals_train: 20, proposals_test: 10}",  # few regions: conv5 of a C4 runs on each of them
    "data.workers=0",
    "train.batch_size=2",
]
SMALL_HEAD = "model.box_head={batch_size_per_image: 8, fc_dim: 64, detections: 5}"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_builds_steps_and_predicts(path: Path) -> None:
    config = load_config(path, overrides=SMALL)
    if config.model.box_head:
        config = load_config(path, overrides=[*SMALL, SMALL_HEAD])
    _ = torch.manual_seed(0)
    dataset = open_split(config.data, "train")
    model = build_model(config.model, len(dataset.class_names))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    batch = next(iter(training_batches(dataset, config, start_step=0, rank=0, world_size=1))).batch

    loss = torch.stack(list(model(batch).values())).sum()
    _ = loss.backward()
    _ = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # frozen norms of a fresh net keep nothing in bounds
    _ = build_optimizer(model, config.optim).step()

    assert loss.isfinite()
    for name, parameter in model.named_parameters():
        assert parameter.isfinite().all(), name
        assert parameter.requires_grad or torch.equal(parameter, before[name]), f"{name} is frozen and moved"
    assert not torch.equal(model.get_parameter("rpn.head.cls_logits.weight"), before["rpn.head.cls_logits.weight"])
    assert (config.model.mask_head is None) == (batch.targets is None or batch.targets.masks is None)
    detections = model.eval().predict(batch)
    assert (config.model.mask_head is None) == (detections.masks is None)
    box_head, proposals = config.model.box_head, config.model.rpn.proposals_test
    assert detections.boxes.shape == (2, box_head.detections if box_head else proposals, 4)
