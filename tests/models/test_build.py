"""`model.backbone.weights`: every part they are for is filled, and images are normalized as the weights ask for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from resdet.config import ModelConfig, load_config
from resdet.errors import UserError
from resdet.models.backbones import build_backbone
from resdet.models.build.detector import build_model
from resdet.weights import WeightContract, save_weights

IMAGENET_MEAN, IMAGENET_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
CAFFE = WeightContract((123.675, 116.28, 103.53), (1.0, 1.0, 1.0), channel_order="BGR", source="a test")


def config_of(name: str, *overrides: str) -> ModelConfig:
    small = ("model.neck.channels=16", "model.box_head.fc_dim=16", "model.backbone.frozen_stages=0")
    return load_config(overrides=[f"model.backbone.name={name}", *small, *overrides]).model


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that are trained on BGR images of Caffe's convention."""
    file = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    _ = torch.manual_seed(0)
    save_weights(file, build_backbone("resnet18").state_dict(), CAFFE)
    return file


@pytest.mark.parametrize("layout", ["fpn", "c4", "dc5"])
def test_weights_fill_the_backbone_whatever_its_parts(resnet18: Path, layout: str) -> None:
    model = build_model(config_of("resnet18", f"model.neck.name={layout}", f"model.backbone.weights={resnet18}"), 3)
    _ = torch.manual_seed(0)
    wanted = build_backbone("resnet18").state_dict()
    ours = model.backbone.state_dict() | (
        model.get_submodule("roi_heads.box_head").state_dict() if layout == "c4" else {}
    )
    assert_close(ours.pop("conv1.weight"), wanted.pop("conv1.weight").flip(1))  # for RGB images
    for name, value in wanted.items():
        assert_close(ours[name], value)
    assert "matched (100.0 %)" in model.notes[0]


def test_the_model_normalizes_as_its_weights_were_trained(resnet18: Path) -> None:
    model = build_model(config_of("resnet18", f"model.backbone.weights={resnet18}"), 3)
    assert model.normalization == (IMAGENET_MEAN, [1.0, 1.0, 1.0])


def test_a_config_that_contradicts_the_weights_is_refused(resnet18: Path) -> None:
    config = config_of("resnet18", f"model.backbone.weights={resnet18}", f"model.pixel_std={IMAGENET_STD}")
    with pytest.raises(
        UserError, match=r"resnet18.*pixel_std: the weights have \(1, 1, 1\).*the model \(58.395"
    ) as error:
        _ = build_model(config, 3)
    assert "\n" not in str(error.value)


def test_fc6_and_fc7_of_a_vgg_fill_its_c4_head(tmp_path: Path) -> None:
    state = build_backbone("vgg11").state_dict()
    state |= {"classifier.0.weight": torch.full((16, 512 * 49), 6.0), "classifier.0.bias": torch.full((16,), 6.5)}
    state |= {"classifier.3.weight": torch.full((16, 16), 7.0), "classifier.3.bias": torch.full((16,), 7.5)}
    torch.save(state, tmp_path / "vgg11.pth")
    weights = f"model.backbone.weights={tmp_path / 'vgg11.pth'}"
    model = build_model(config_of("vgg11", "model.neck.name=c4", weights), 3)
    head = model.get_submodule("roi_heads.box_head").state_dict()
    assert_close([head[f"fc{n}.bias"][0].item() for n in (6, 7)], [6.5, 7.5])
    assert build_model(config_of("vgg11", weights), 3).notes[0].count("0 missing") == 1  # FPN: a head of its own


def test_without_weights_the_backbone_says_how_to_normalize() -> None:
    assert build_model(config_of("nano"), 3).normalization == (IMAGENET_MEAN, IMAGENET_STD)
    assert build_model(config_of("timm/mobilenetv3_small_050"), 3).normalization == (IMAGENET_MEAN, IMAGENET_STD)
    inception = build_model(config_of("timm/tf_mobilenetv3_small_minimal_100"), 3)
    assert inception.normalization == ([127.5] * 3, [127.5] * 3)


def test_the_config_has_the_last_word_without_weights() -> None:
    model = build_model(config_of("nano", "model.pixel_mean=[1, 2, 3]", "model.pixel_std=[4, 5, 6]"), 3)
    assert model.normalization == ([1, 2, 3], [4, 5, 6])
    model.normalize_by((7.0, 8.0, 9.0), (1.0, 1.0, 1.0))
    assert model.normalization == ([7, 8, 9], [1, 1, 1])


def test_no_anchor_is_both_foreground_and_background() -> None:
    with pytest.raises(UserError, match=r"background_iou=0.9 must not be above model.rpn.foreground_iou=0.7"):
        _ = build_model(config_of("resnet18", "model.rpn.background_iou=0.9"), 3)
