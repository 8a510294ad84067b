"""A file of Detectron2's model zoo is a CHECKPOINT: random weights under the names there, and no pickle runs code."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import resdet
from resdet import downloads
from resdet.cli.main import main
from resdet.config import BoxHeadConfig, MaskHeadConfig, ModelConfig
from resdet.engine.checkpoint import read_model_file
from resdet.models.build.conventions import completed
from resdet.models.build.detector import build_model
from resdet.models.rcnn import RCNN
from resdet.weights import WeightContract
from resdet.weights.convert.detectron2 import CAFFE_MEAN, CAFFE_STD
from resdet.weights.sources import coco_names

COCO = tuple(name for name in coco_names() if name != "N/A")
# The zoo's names for ours: the first pattern that matches.
ZOO_NAMES = (
    (r"backbone\.conv1\.(\w+)", r"backbone.bottom_up.stem.conv1.{0}"),
    (r"backbone\.bn1\.(\w+)", r"backbone.bottom_up.stem.conv1.norm.{0}"),
    (r"backbone\.layer(\d)\.(\d+)\.conv(\d)\.(\w+)", r"backbone.bottom_up.res{0}.{1}.conv{2}.{3}"),
    (r"backbone\.layer(\d)\.(\d+)\.bn(\d)\.(\w+)", r"backbone.bottom_up.res{0}.{1}.conv{2}.norm.{3}"),
    (r"backbone\.layer(\d)\.(\d+)\.downsample\.0\.(\w+)", r"backbone.bottom_up.res{0}.{1}.shortcut.{2}"),
    (r"backbone\.layer(\d)\.(\d+)\.downsample\.1\.(\w+)", r"backbone.bottom_up.res{0}.{1}.shortcut.norm.{2}"),
    (r"neck\.inner_blocks\.(\d)\.0\.(\w+)", r"backbone.fpn_lateral{0}.{1}"),
    (r"neck\.layer_blocks\.(\d)\.0\.(\w+)", r"backbone.fpn_output{0}.{1}"),
    (r"rpn\.head\.conv\.0\.0\.(\w+)", r"proposal_generator.rpn_head.conv.{0}"),
    (r"rpn\.head\.cls_logits\.(\w+)", r"proposal_generator.rpn_head.objectness_logits.{0}"),
    (r"rpn\.head\.bbox_pred\.(\w+)", r"proposal_generator.rpn_head.anchor_deltas.{0}"),
    (r"roi_heads\.box_head\.fc6\.(\w+)", r"roi_heads.box_head.fc1.{0}"),
    (r"roi_heads\.box_head\.fc7\.(\w+)", r"roi_heads.box_head.fc2.{0}"),
)


def zoo_name(name: str) -> str:
    """Stages are counted from 2 there: res2 is layer1, and fpn_lateral2 the first block."""
    for pattern, theirs in ZOO_NAMES:
        if (found := re.fullmatch(pattern, name)) is not None:
            first, *others = found.groups()
            more = 2 if pattern.startswith("neck") else 1 if ".layer" in pattern else 0
            return theirs.format(int(first) + more if more else first, *others)
    return name


@pytest.fixture(scope="module")
def ours() -> tuple[RCNN, ModelConfig]:
    """A small Mask R-CNN on a whole ResNet-50, with the conventions of the zoo."""
    config = ModelConfig(
        num_classes=80, box_head=BoxHeadConfig(fc_dim=16), mask_head=MaskHeadConfig(convs=4, channels=8)
    )
    config.backbone.name, config.neck.channels = "resnet50_caffe", 16
    contract = WeightContract(
        CAFFE_MEAN, CAFFE_STD, anchors_rounded=False, roi_align_aligned=True, roi_sampling_ratio=0
    )
    config, _ = completed(config, contract, "a test")
    _ = torch.manual_seed(0)
    model = build_model(config, 80)
    assert isinstance(model, RCNN)
    return model, config


@pytest.fixture
def file(ours: tuple[RCNN, ModelConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESDET_CACHE", str(tmp_path / "cache"))
    return written(ours[0].state_dict(), tmp_path / "model_final_280758.pkl")


def written(state: dict[str, Tensor], path: Path) -> Path:
    """As the zoo writes it: numpy arrays in a pickle, with images in the order BGR."""
    model = {
        zoo_name(name): (value.flip(1) if name == "backbone.conv1.weight" else value).numpy()
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }
    assert "roi_heads.mask_head.mask_fcn1.weight" in model
    anchors = {f"proposal_generator.anchor_generator.cell_anchors.{i}": np.zeros((3, 4), np.float32) for i in range(5)}
    content = {"model": model | anchors, "__author__": "Detectron2 Model Zoo"}
    _ = path.write_bytes(pickle.dumps(content))
    return path


def of_first_classes(name: str, value: Tensor, most: int) -> Tensor:
    """A tensor of a detector of the first classes alone; the background is the last row."""
    if "box_predictor.cls_score" in name:
        return torch.cat([value[:most], value[-1:]])
    if "box_predictor.bbox_pred" in name:
        return value[: 4 * most]
    return value[:most] if "mask_head.predictor" in name else value


def test_a_file_of_the_zoo_predicts_with_its_config_and_cocos_names(
    ours: tuple[RCNN, ModelConfig], file: Path, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    sizes = ["data.augment.test_short_side=96", "model.box_head.score_threshold=0"]
    assert main(["predict", str(file), str(tmp_path / "photo.png"), *sizes, "--output", str(tmp_path / "out")]) == 0
    results = json.loads((tmp_path / "out/predictions.json").read_text())
    assert results != []
    assert {"bbox", "segmentation"} <= results[0].keys()
    (converted,) = (tmp_path / "cache/detectors").iterdir()
    saved = read_model_file(converted)
    assert (saved.class_names, saved.category_ids[-1]) == (COCO, 90)
    assert saved.config.model == ours[1]
    loaded: dict[str, Tensor] = resdet.load(file, device="cpu").model.state_dict()
    for name, value in ours[0].state_dict().items():
        torch.testing.assert_close(loaded[name], value, rtol=0, atol=0, msg=name)


def test_a_name_of_the_zoo_is_its_file_in_torchs_cache(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random weights cannot have the md5 in the name, so it is not checked."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(downloads, "_wrong_hash", lambda path, name: None)
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    _ = file.rename(tmp_path / "hub/checkpoints/model_final_f10217.pkl")
    detector = resdet.load("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x", device="cpu")
    assert detector.class_names == COCO
    assert detector.origin is not None
    assert detector.origin.files[0].name.startswith("model_final_f10217-resdet-")


def test_a_detector_of_the_zoo_that_is_not_of_coco_has_the_classes_and_image_sizes_of_its_set(
    ours: tuple[RCNN, ModelConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name, and by a file under the name that it has there."""
    monkeypatch.setenv("RESDET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(downloads, "_wrong_hash", lambda path, name: None)
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    state = {name: of_first_classes(name, value, 8) for name, value in ours[0].state_dict().items()}
    file = written(state, tmp_path / "hub/checkpoints/model_final_af9cf5.pkl")
    for given in ("Cityscapes/mask_rcnn_R_50_FPN", file):
        detector = resdet.load(given, device="cpu")
        assert detector.class_names == ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
        assert detector.origin is not None
        augment = read_model_file(detector.origin.files[0]).config.data.augment
        assert (augment.test_short_side, augment.max_side) == (1024, 2048)


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('a pickle ran')",)


def test_a_pickle_that_would_run_something_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESDET_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "model_final_280758.pkl"
    _ = path.write_bytes(pickle.dumps({"model": {"backbone.bottom_up.stem.conv1.weight": Hostile()}}))
    _ = (tmp_path / "photo.png").write_bytes(b"")
    assert main(["predict", str(path), str(tmp_path / "photo.png"), "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "only numpy arrays and plain containers are read" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "cache").exists()
