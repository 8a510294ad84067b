"""A converted detector is a detector: its config follows from its tensors, and every command takes it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

from resdet.config import BoxHeadConfig, CascadeConfig, MaskHeadConfig, ModelConfig
from resdet.engine.checkpoint import read_model_file
from resdet.engine.converted import category_ids_of, convert_to_file
from resdet.engine.saved_models import load_model
from resdet.errors import UserError
from resdet.models.build.conventions import completed
from resdet.models.build.derive import derived_config
from resdet.models.build.detector import build_model, pretrained_detector
from resdet.structures import Batch
from resdet.weights import WeightContract, open_weights
from resdet.weights.convert import from_detectron2
from resdet.weights.convert.detectron2 import CAFFE_MEAN, CAFFE_STD
from resdet.weights.sources import coco_names

ZOO = Path(__file__).resolve().parents[2] / "../shared/fixtures/detectron2/detectron2_state_dict_keys.json"


def a_config(backbone: str, neck: str, **parts: Any) -> ModelConfig:
    config = ModelConfig(**parts)
    config.backbone.name, config.neck.name, config.num_classes = backbone, neck, 7
    if neck == "c4":
        config.box_head = BoxHeadConfig(resolution=14)
        if config.mask_head:
            config.mask_head.convs = 0
    if neck != "fpn":
        config.rpn.pre_nms_train, config.rpn.pre_nms_test = 12000, 6000
    return config


def four_convs() -> ModelConfig:
    config = a_config("resnet50", "fpn", box_head=BoxHeadConfig(name="four_conv_fc", norm="bn"))
    config.neck.norm, config.rpn.convs = "bn", 2
    return config


def seven_levels() -> ModelConfig:
    config = a_config("resnet50", "fpn")
    config.neck.extra_levels, config.anchors.sizes = "conv", [32.0, 64.0, 128.0, 256.0, 512.0, 1024.0]
    return config


CONFIGS = {
    "fpn": a_config("resnet50", "fpn"),
    "fpn of 101 layers with masks": a_config("resnet101_caffe", "fpn", mask_head=MaskHeadConfig(convs=4, channels=256)),
    "c4": a_config("resnet50_caffe", "c4"),
    "c4 with masks": a_config("resnet50_caffe", "c4", mask_head=MaskHeadConfig(convs=0, channels=256)),
    "dc5": a_config("resnet101_caffe", "dc5"),
    "cascade": a_config("resnet50", "fpn", cascade=CascadeConfig()),
    "resnext": a_config("resnext101_32x8d", "fpn"),
    "class-agnostic": a_config("resnet50", "fpn", box_head=BoxHeadConfig(class_agnostic=True)),
    "four convolutions and norms": four_convs(),
    "P6 and P7": seven_levels(),
}


def contract_for(config: ModelConfig) -> WeightContract:
    return WeightContract(
        CAFFE_MEAN,
        CAFFE_STD,
        architecture=config.backbone.name,
        source="a test",
        anchors_rounded=False,
        roi_align_aligned=True,
        roi_sampling_ratio=0,
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_the_config_of_a_detector_follows_from_its_tensors(name: str) -> None:
    config = CONFIGS[name]
    contract = contract_for(config)
    with torch.device("meta"):
        state = build_model(config, 7).state_dict()
    wanted, _ = completed(config, contract, "a test")
    assert derived_config(state, contract) == wanted


def test_tensors_that_no_config_has_are_refused_with_their_names() -> None:
    config = CONFIGS["fpn"]
    with torch.device("meta"):
        state = build_model(config, 7).state_dict()
        state["roi_heads.keypoint_head.weight"] = torch.empty(2)
    with pytest.raises(UserError, match=r"1 of its tensors do not fit resnet50 with fpn \(roi_heads\.keypoint_head"):
        _ = derived_config(state, contract_for(config))


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "backbone", "neck", "masks"),
    [
        ("mask_rcnn_R_101_FPN_3x", "resnet101_caffe", "fpn", True),
        ("faster_rcnn_R_101_C4_3x", "resnet101_caffe", "c4", False),
        ("faster_rcnn_R_50_DC5_3x", "resnet50_caffe", "dc5", False),
        ("mask_rcnn_R_50_C4_3x", "resnet50_caffe", "c4", True),
    ],
)
def test_the_config_of_a_detector_of_the_zoo_follows_from_its_names(
    name: str, backbone: str, neck: str, *, masks: bool
) -> None:
    if not ZOO.is_file():
        pytest.skip(f"{ZOO} is not here")
    listing = next(value for key, value in json.loads(ZOO.read_text()).items() if key.endswith(name))
    with torch.device("meta"):
        converted = from_detectron2({key: torch.empty(shape) for key, shape in listing.items()}, name)
        contract = contract_for(a_config(backbone, neck))
        config = derived_config(converted.state, contract)
    assert (config.backbone.name, config.neck.name, config.mask_head is not None) == (backbone, neck, masks)
    assert config.num_classes == 80


def test_coco_classes_have_cocos_ids_and_others_count_from_one() -> None:
    coco = [name for name in coco_names() if name != "N/A"]
    assert category_ids_of(coco)[:12] == (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13)  # 12 was a street sign
    assert (len(category_ids_of(coco)), category_ids_of(coco)[-1]) == (80, 90)
    assert category_ids_of(["dog", "person"]) == (18, 1)
    assert category_ids_of(["dog", "zebu"]) == (1, 2)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    """torchvision's Faster R-CNN of three classes, with random weights, as a file."""
    _ = torch.manual_seed(0)
    model = torchvision.models.detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4)
    file = tmp_path_factory.mktemp("published") / "tv.pth"
    torch.save(model.state_dict(), file)
    return file, model.state_dict()


@pytest.fixture(scope="module")
def converted(published: tuple[Path, dict[str, Tensor]]) -> tuple[Path, list[str]]:
    output = published[0].with_name("tv.safetensors")
    before = os.umask(0o027)
    try:
        return output, convert_to_file(str(published[0]), "torchvision", output)
    finally:
        _ = os.umask(before)


def test_a_converted_file_is_a_model_that_is_loaded_by_its_name_alone(converted: tuple[Path, list[str]]) -> None:
    file, lines = converted
    model, config, class_names, category_ids = load_model(file)
    assert class_names == ("class_1", "class_2", "class_3")
    assert category_ids == (1, 2, 3)
    assert config.model.box_head is not None
    assert (config.model.anchors.rounded, config.model.box_head.aligned) == (True, False)
    assert any("class_1 to class_3; give --class-names FILE" in line for line in lines)
    assert any(line.startswith("a detector: resnet50, fpn, 3 classes") for line in lines)
    _ = torch.manual_seed(0)
    batch = Batch(torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8), torch.tensor([[64, 96]]))
    detections = model.predict(batch)  # pyright: ignore[reportCallIssue]
    assert detections.boxes.isfinite().all()


def test_a_model_that_starts_from_a_converted_file_is_the_one_that_is_loaded(
    converted: tuple[Path, list[str]],
) -> None:
    file, _ = converted
    loaded = load_model(file)[0]
    started, config, lines = pretrained_detector(ModelConfig(), file, ("class_1", "class_2", "class_3"))
    torch.testing.assert_close(started.state_dict(), loaded.state_dict(), rtol=0, atol=0)
    assert config.anchors.rounded is True
    assert any(line.startswith("taken over from") for line in lines)


def test_a_converted_file_may_be_read_by_whom_the_umask_allows(converted: tuple[Path, list[str]]) -> None:
    assert oct(converted[0].stat().st_mode & 0o777) == "0o640"
    assert [path.name for path in converted[0].parent.iterdir() if path.name.startswith(".")] == []


def test_a_given_config_that_the_tensors_do_not_fit_is_refused(
    published: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    _ = (tmp_path / "c4.yaml").write_text("model: {neck: {name: c4}, box_head: {resolution: 14}}\n")
    with pytest.raises(UserError, match=r"c4\.yaml: no detector of resdet's, \d+ of its tensors do not fit") as caught:
        _ = convert_to_file(str(published[0]), "torchvision", tmp_path / "o.safetensors", config=tmp_path / "c4.yaml")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "o.safetensors").exists()


def test_a_backbone_has_no_config(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "r18.pth")
    _ = convert_to_file(str(tmp_path / "r18.pth"), "torchvision", tmp_path / "r18.safetensors")
    with pytest.raises(UserError, match=r"its header has no 'class_names'"):
        _ = read_model_file(tmp_path / "r18.safetensors")


def test_detectors_that_torchvision_runs_without_an_epsilon_keep_their_scale(
    published: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    """Its 1 / sqrt(variance) is our 1 / sqrt((variance - 1e-5) + 1e-5)."""
    file = tmp_path / "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth"
    file.symlink_to(published[0])
    state = open_weights(file).state
    theirs = published[1]["backbone.body.bn1.running_var"]
    torch.testing.assert_close(state["backbone.bn1.running_var"] + 1e-5, theirs)
    assert not torch.equal(state["backbone.bn1.running_var"], theirs)
