"""Parameters and multiply-adds, against a pencil and against what torchvision publishes."""

from __future__ import annotations

from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
import torch
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from resdet.analysis.compare.cost import cost, multiply_adds, parameters, typical_size
from resdet.config import AugmentConfig, Config, load_config
from resdet.data.sets.coco import CocoDataset
from resdet.data.sets.formats import read_set
from resdet.models.build.detector import build_model
from resdet.structures import Batch

CONFIGS = Path(__file__).parents[3] / "configs"


def config(name: str, *overrides: str) -> Config:
    return load_config(CONFIGS / name, overrides=["model.backbone.weights=null", *overrides])


def test_multiply_adds_are_torchvisions() -> None:
    """134.38 G for an image of 800 x 800; torchvision counts four unused box rows for the background, 4 M."""
    published = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["_ops"]
    counted = cost(config("faster_rcnn_r50_fpn_1x_coco.yaml"), 90, (800, 800)).multiply_adds
    assert counted.total / 1e9 == pytest.approx(published, abs=0.005)


def test_parameters_are_torchvisions() -> None:
    published = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["num_params"]
    unused_background_boxes = 4 * (1024 + 1)
    frozen_norms = 2 * 26_560  # scales and offsets, which torchvision holds as buffers and does not count
    counted = cost(config("faster_rcnn_r50_fpn_1x_coco.yaml"), 90, (800, 800)).parameters
    assert counted.total == published - unused_background_boxes + frozen_norms


def test_a_tiny_net_with_a_pencil() -> None:
    """nano: three 3x3 convolutions of stride 2 ... to maps of 16, 8, 4 and 2 cells a side on 64 pixels; P6 has 1."""
    counted = cost(config("nano.yaml"), 3, (64, 64))
    cells = 16**2 + 8**2 + 4**2 + 2**2
    lateral, output = 16 * 16, 9 * 16 * 16
    assert counted.multiply_adds.neck == cells * (lateral + output)
    anchors = 3
    rpn_cell = 9 * 16 * 16 + 16 * anchors * (1 + 4)
    assert counted.multiply_adds.rpn == (cells + 1) * rpn_cell
    fc6, fc7, predictor = 16 * 3 * 3 * 32, 32 * 32, 32 * (4 + 3 * 4)
    assert counted.proposals == 50
    assert counted.multiply_adds.heads == 50 * (fc6 + fc7 + predictor)
    assert counted.parameters.neck == 4 * (lateral + output + 2 * 16)
    assert counted.parameters.rpn == rpn_cell + 16 + anchors * (1 + 4)
    assert counted.parameters.heads == fc6 + fc7 + predictor + 32 + 32 + 4 + 3 * 4


def test_the_meta_device_counts_what_a_real_prediction_does() -> None:
    model = build_model(config("nano.yaml").model, 3).eval()
    batch = Batch(torch.zeros(1, 3, 64, 96, dtype=torch.uint8), torch.tensor([[64, 96]]))
    expected = cost(config("nano.yaml"), 3, (64, 96))
    assert multiply_adds(model, batch) == expected.multiply_adds
    assert parameters(model) == expected.parameters


@pytest.mark.parametrize("neck", ["fpn", "c4", "dc5"])
def test_a_frozen_norm_costs_as_much_as_one_that_learns(neck: str) -> None:
    """And layers that run on each region belong to the heads."""
    sizes = [] if neck == "fpn" else ["model.anchors.sizes=[32]"]
    frozen, learns = (
        cost(config("nano.yaml", "model.backbone.name=resnet18", f"model.backbone.norm={norm}",
                    f"model.neck.name={neck}", *sizes), 3, (64, 64))
        for norm in ("frozen_bn", "bn")
    )  # fmt: skip
    assert frozen == learns
    conv5 = sum(9 * a * b + 2 * b for a, b in ((256, 512), (512, 512), (512, 512), (512, 512))) + 256 * 512 + 2 * 512
    whole = 11_176_512  # resnet18 without its classifier
    assert frozen.parameters.trunk == (whole - conv5 if neck == "c4" else whole)


def test_images_are_padded_to_what_the_detector_sees() -> None:
    assert cost(config("nano.yaml"), 3, (50, 70)).size == (64, 96)


def test_the_typical_size_is_that_of_the_image_of_median_area(tmp_path: Path) -> None:
    sizes = [(100, 100), (100, 150), (100, 400)]  # (height, width); by 2: the last is held by the longest side
    assert typical_size(data_set(tmp_path, sizes), AugmentConfig(test_short_side=200, max_side=600)) == (200, 300)


def data_set(folder: Path, sizes: list[tuple[int, int]]) -> CocoDataset:
    images = []
    for number, (height, width) in enumerate(sizes, start=1):
        assert cv2.imwrite(str(folder / f"{number}.png"), np.zeros((height, width, 3), np.uint8))
        images.append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "thing"}]}
    path = folder / "annotations.json"
    _ = path.write_bytes(msgspec.json.encode(content))
    return read_set(path, folder, require_objects=False)
