"""torchvision's names become ours, all of them; rows of classes keep their meaning."""

import re

import pytest
import torch
import torchvision

from resdet.config import ModelConfig, load_config
from resdet.errors import UserError
from resdet.models.build.detector import build_model
from resdet.weights import load_model_weights, open_weights
from resdet.weights.convert import from_torchvision, keep_classes
from resdet.weights.convert_file import convert_file
from resdet.weights.coverage import without_counters
from torchvision_oracle import small_torchvision


def shapes(state):
    return {name: tuple(value.shape) for name, value in state.items()}


def detector(name="resnet50", *overrides, classes=80):
    config = load_config(overrides=[f"model.backbone.name={name}", *overrides]).model
    with torch.device("meta"):
        return build_model(config, classes)


def test_the_background_moves_from_the_first_row_to_the_last():
    converted = from_torchvision(small_torchvision(2), "f")
    state = converted.state
    assert state["roi_heads.box_predictor.cls_score.bias"].tolist() == [1, 2, 0]
    assert state["roi_heads.box_predictor.cls_score.weight"][:, 0].tolist() == [1, 2, 0]
    assert state["roi_heads.box_predictor.bbox_pred.bias"].tolist() == [4, 5, 6, 7, 8, 9, 10, 11]
    assert state["roi_heads.box_predictor.bbox_pred.weight"][:, 0].tolist() == [4, 5, 6, 7, 8, 9, 10, 11]
    assert state["roi_heads.mask_head.predictor.bias"].tolist() == [1, 2]
    masks = {name.removeprefix("roi_heads.mask_head.") for name in state if ".mask_head." in name}
    layers = {"mask_fcn3.weight", "mask_fcn3.norm.running_mean", "deconv.weight", "predictor.weight", "predictor.bias"}
    assert masks == layers
    assert (converted.contract.anchors_rounded, converted.contract.roi_align_aligned) == (True, False)


def test_unused_category_ids_lose_their_rows():
    names = ["__background__", "person", "N/A", "car"]
    converted = keep_classes(from_torchvision(small_torchvision(3), "f"), names)
    state = converted.state
    assert state["roi_heads.box_predictor.cls_score.bias"].tolist() == [1, 3, 0]
    assert state["roi_heads.box_predictor.bbox_pred.bias"].tolist() == [4, 5, 6, 7, 12, 13, 14, 15]
    assert state["roi_heads.mask_head.predictor.bias"].tolist() == [1, 3]
    assert converted.contract.class_names == ("person", "car")
    assert "1 classes called N/A left out" in converted.notes
    with pytest.raises(UserError, match="2 class names for a file of 3 classes"):
        _ = keep_classes(from_torchvision(small_torchvision(3), "f"), ["a", "b"])


def on_meta_torchvision(name):
    with torch.device("meta"):
        return getattr(torchvision.models.detection, name)(weights=None, weights_backbone=None).state_dict()


def old_name(name):
    """As the files published before torchvision 0.13 have it: no place for a norm behind a convolution."""
    name = re.sub(r"(_blocks\.\d)\.0\.", r"\1.", name)
    name = re.sub(r"mask_head\.(\d)\.0\.", lambda found: f"mask_head.mask_fcn{int(found[1]) + 1}.", name)
    return name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")


MASK = "model.mask_head.name=fcn"
BN = (
    "model.backbone.norm=bn",
    "model.neck.norm=bn",
    "model.box_head={name: four_conv_fc, norm: bn}",
    "model.rpn.convs=2",
)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("fasterrcnn_resnet50_fpn", ()),
        ("fasterrcnn_resnet50_fpn_v2", BN),
        ("maskrcnn_resnet50_fpn", (MASK,)),
        ("maskrcnn_resnet50_fpn_v2", (*BN, MASK, "model.mask_head.norm=bn")),
    ],
)
def test_torchvisions_detectors_have_the_names_and_shapes_of_ours(name, overrides):
    new = on_meta_torchvision(name)
    for state in (new, {old_name(name): value for name, value in new.items()}):
        converted = without_counters(from_torchvision(state, "f").state)
        ours = without_counters(detector("resnet50", *overrides, classes=90).state_dict())
        assert shapes(converted) == shapes(ours)


@pytest.mark.parametrize("name", ["fasterrcnn_resnet50_fpn_v2", "maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"])
def test_every_name_of_torchvisions_other_detectors_has_one_place(name):
    state = on_meta_torchvision(name)
    for names in (state, {old_name(name): value for name, value in state.items()}):
        converted = from_torchvision(names, "f")
        assert len(converted.state) == len(state)
        assert shapes(converted.state)["roi_heads.box_predictor.bbox_pred.weight"] == (360, 1024)


def test_a_converted_detector_loads_into_ours(tmp_path):
    _ = torch.manual_seed(0)
    model = torchvision.models.detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4)
    torch.save(model.state_dict(), tmp_path / "tv.pth")
    ours = build_model(ModelConfig(), 3)
    weights = open_weights(tmp_path / "tv.pth")
    report, contract = load_model_weights(ours, weights), weights.contract
    assert (report.ratio, report.unexpected, report.reinitialized) == (1.0, (), ())
    assert contract is not None
    assert contract.pixel_mean == (123.675, 116.28, 103.53)  # 255 times 0.485, 0.456, 0.406
    scores = model.state_dict()["roi_heads.box_predictor.cls_score.bias"]
    torch.testing.assert_close(ours.state_dict()["roi_heads.box_predictor.cls_score.bias"], scores.roll(-1))


def test_a_torchvision_classifier_loses_its_last_layer():
    converted = from_torchvision({"conv1.weight": torch.ones(4, 3, 7, 7), "fc.weight": torch.ones(2, 4)}, "f")
    assert list(converted.state) == ["conv1.weight"]
    assert converted.notes == ("left out, resdet has no place for them: fc.weight",)


def test_coco_has_80_names_and_90_category_ids(tmp_path):
    for rows in (80, 90):
        torch.save(small_torchvision(rows), tmp_path / f"{rows}.pth")
        contract = convert_file(str(tmp_path / f"{rows}.pth"), "torchvision", class_names="coco").contract
        assert contract.class_names is not None
        assert len(contract.class_names) == 80
        assert (contract.class_names[0], contract.class_names[-1]) == ("person", "toothbrush")
