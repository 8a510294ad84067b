"""What weights say of their model is taken over, checked or carried: no field of a contract is without an owner."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import pytest
import torch

from resdet.config import Config, MaskHeadConfig, ModelConfig
from resdet.errors import UserError
from resdet.models.backbones import BACKBONES
from resdet.models.backbones.resnet import Bottleneck, ResNet
from resdet.models.build.classifier import build_classifier, pretrained_classifier
from resdet.models.build.conventions import CONVENTIONS, as_in, completed, contract_of
from resdet.models.build.detector import build_model, pretrained_detector
from resdet.weights import WeightContract, save_weights

TORCHVISION = WeightContract(
    pixel_mean=(123.675, 116.28, 103.53),
    pixel_std=(58.395, 57.12, 57.375),
    stride_in_1x1=False,
    bn_eps=1e-5,
    class_names=("cat", "dog"),
    architecture="tiny",
    source="a test",
    anchors_rounded=True,
    roi_align_aligned=False,
    roi_sampling_ratio=4,
)
CHECKED_ON_LAYERS = {"stride_in_1x1", "bn_eps"}
CARRIED = {"scale", "channel_order", "class_names", "architecture", "source"}
TINY = {
    "tiny": partial(ResNet, Bottleneck, (1, 1, 1, 1), stem_channels=8, c2_channels=16),
    "tiny_caffe": partial(
        ResNet, partial(Bottleneck, stride_in_1x1=True), (1, 1, 1, 1), stem_channels=8, c2_channels=16
    ),
}


@pytest.fixture(autouse=True)
def tiny_nets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, make in TINY.items():
        monkeypatch.setitem(BACKBONES, name, make)


def tiny(name: str = "tiny") -> ModelConfig:
    config = ModelConfig(mask_head=MaskHeadConfig(convs=1))
    config.backbone.name, config.backbone.frozen_stages, config.neck.channels = name, 0, 16
    assert config.box_head is not None
    config.box_head.fc_dim = 16
    return config


def saved(folder: Path, name: str = "tiny", contract: WeightContract = TORCHVISION) -> Path:
    _ = torch.manual_seed(1)
    save_weights(folder / "w.safetensors", build_model(tiny(name), 2).state_dict(), contract)
    return folder / "w.safetensors"


def test_every_field_of_a_contract_is_taken_over_checked_or_carried() -> None:
    assert {field.name for field in fields(WeightContract)} == set(CONVENTIONS) | CHECKED_ON_LAYERS | CARRIED


def test_a_detector_takes_over_what_its_weights_say(tmp_path: Path) -> None:
    file = saved(tmp_path)
    model, config, lines = pretrained_detector(tiny(), file, ("cat", "dog"))
    assert config.box_head is not None
    assert config.mask_head is not None
    assert (config.anchors.rounded, config.box_head.aligned) == (True, False)
    assert (config.box_head.sampling_ratio, config.mask_head.sampling_ratio) == (4, 4)
    assert model.normalization[0] == pytest.approx([123.675, 116.28, 103.53])
    (line,) = [line for line in lines if line.startswith("taken over")]
    assert line.startswith(f"taken over from {file}: model.anchors.rounded=true, model.box_head.aligned=false, ")
    cells = [value for name, value in model.named_buffers() if ".cell" in name]
    assert len(cells) == 5
    assert all(torch.equal(cell, cell.round()) for cell in cells)


def test_without_weights_a_detector_is_detectron2s_with_two_samples() -> None:
    config, lines = completed(tiny(), None, "nothing")
    assert config.box_head is not None
    assert (config.anchors.rounded, config.box_head.aligned, config.box_head.sampling_ratio) == (False, True, 2)
    assert lines == ()


CONTRADICTIONS = {
    "model.anchors.rounded": ("anchors", "rounded", False),
    "model.box_head.aligned": ("box_head", "aligned", True),
    "model.box_head.sampling_ratio": ("box_head", "sampling_ratio", 2),
    "model.mask_head.sampling_ratio": ("mask_head", "sampling_ratio", 2),
    "model.pixel_mean": (None, "pixel_mean", [1.0, 2.0, 3.0]),
    "model.pixel_std": (None, "pixel_std", [1.0, 1.0, 1.0]),
}


@pytest.mark.parametrize("key", CONTRADICTIONS)
def test_a_config_that_contradicts_the_weights_is_refused_in_one_line(tmp_path: Path, key: str) -> None:
    part, name, value = CONTRADICTIONS[key]
    config = tiny()
    setattr(config if part is None else getattr(config, part), name, value)
    with pytest.raises(UserError, match=rf"leave {key} out, for it follows from the weights") as caught:
        _ = pretrained_detector(config, saved(tmp_path), ("cat", "dog"))
    assert "\n" not in str(caught.value)


def test_a_config_that_agrees_with_the_weights_is_taken(tmp_path: Path) -> None:
    config = tiny()
    config.anchors.rounded = True
    assert pretrained_detector(config, saved(tmp_path), ("cat", "dog"))[1].anchors.rounded is True


@pytest.mark.parametrize(("theirs", "ours"), [("tiny", "tiny_caffe"), ("tiny_caffe", "tiny")])
def test_a_detector_with_its_stride_elsewhere_is_refused_with_the_name_that_fits(
    tmp_path: Path, theirs: str, ours: str
) -> None:
    contract = replace(TORCHVISION, stride_in_1x1=theirs == "tiny_caffe", architecture=theirs)
    file = saved(tmp_path, theirs, contract)
    with pytest.raises(UserError, match=rf"trained with the stride in .* set model.backbone.name={theirs}$") as caught:
        _ = pretrained_detector(tiny(ours), file, ("cat", "dog"))
    assert "\n" not in str(caught.value)
    assert pretrained_detector(tiny(theirs), file, ("cat", "dog"))[0].training


def test_a_detector_with_another_epsilon_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, contract=replace(TORCHVISION, bn_eps=1e-3))
    with pytest.raises(UserError, match=r"trained with bn_eps 0\.001, but backbone\.bn1 of the model has 1e-05"):
        _ = pretrained_detector(tiny(), file, ("cat", "dog"))


def test_a_classifier_is_held_to_its_stride_too(tmp_path: Path) -> None:
    file = tmp_path / "c.safetensors"
    contract = replace(TORCHVISION, stride_in_1x1=True, architecture="tiny_caffe")
    save_weights(file, build_classifier(tiny("tiny_caffe"), 2).state_dict(), contract)
    with pytest.raises(UserError, match=r"set model.backbone.name=tiny_caffe$"):
        _ = pretrained_classifier(tiny(), file, ("cat", "dog"))
    model, _, _ = pretrained_classifier(tiny("tiny_caffe"), file, ("cat", "dog"))
    assert model.normalization[1] == pytest.approx([58.395, 57.12, 57.375])


@pytest.mark.parametrize(("name", "stride_in_1x1"), [("tiny", False), ("tiny_caffe", True)])
def test_a_checkpoint_says_everything_of_its_weights(name: str, *, stride_in_1x1: bool) -> None:
    normalization = [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]
    contract = contract_of(Config(model=tiny(name)), ("cat",), "a test", normalization)
    assert contract == WeightContract(
        (1.0, 2.0, 3.0),
        (4.0, 5.0, 6.0),
        stride_in_1x1=stride_in_1x1,
        bn_eps=1e-5,
        class_names=("cat",),
        architecture=name,
        source="a test",
        anchors_rounded=False,
        roi_align_aligned=True,
        roi_sampling_ratio=2,
    )


def test_a_run_goes_on_under_its_own_conventions() -> None:
    saved_config, _ = completed(tiny(), TORCHVISION, "weights")
    resumed = as_in(tiny(), saved_config)
    assert resumed.anchors == saved_config.anchors
    assert resumed.box_head == saved_config.box_head
    assert resumed.mask_head == saved_config.mask_head
