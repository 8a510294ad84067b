"""Published detectors by name. No network is needed: torch's cache has files of random weights under their names."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models.detection import FasterRCNN

import resdet
from resdet import downloads
from resdet.cli.main import COMMANDS, main
from resdet.engine.published import PUBLISHED, TORCHVISION, published_detector
from resdet.errors import UserError
from resdet.weights.sources import coco_names
from torchvision_oracle import random_detector

NEVER = [label for label, name in enumerate(["background", *coco_names()]) if name == "N/A"]
SIZE = (128, 192)  # multiples of 64: otherwise theirs takes another stride for P6, the image divided by the map
ZOO_NAME = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x"
V1, MASK_V2 = "fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of torch and resdet, and no network."""
    monkeypatch.setenv("RESDET_CACHE", str(tmp_path / "resdet"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(socket, "create_connection", refuse)
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    return tmp_path / "hub/checkpoints"


def refuse(*_: object, **__: object) -> None:
    raise OSError("no network")


def as_published(name: str) -> FasterRCNN:
    """torchvision's detector with random weights; as in a trained one, the ids of COCO without a class never win."""
    model = random_detector(name, min_size=SIZE[0], max_size=SIZE[1])
    with torch.no_grad():
        model.get_parameter("roi_heads.box_predictor.cls_score.bias")[NEVER] = -1e4
    if not name.endswith("v2"):
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = 0.0  # as torchvision runs the files of these names
    return model


@pytest.fixture
def in_the_cache(hub: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], FasterRCNN]:
    """Puts random weights under a published name; their sha256 cannot be the one in the name, so it is not checked."""
    monkeypatch.setattr(downloads, "_wrong_hash", lambda path, name: None)

    def put(name: str) -> FasterRCNN:
        model = as_published(name)
        torch.save(model.state_dict(), published_detector(name).file)
        return model

    return put


def check_same(name: str, theirs: FasterRCNN) -> None:
    sizes = (f"data.augment.test_short_side={SIZE[0]}", f"data.augment.max_side={SIZE[1]}")
    detector = resdet.load(name, overrides=sizes, device="cpu")
    assert detector.class_names == tuple(name for name in coco_names() if name != "N/A")
    assert detector.category_ids[-1] == 90
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    # It rounds boxes to paste masks into whole pixels; the scale is 1.
    object.__setattr__(theirs.transform, "postprocess", lambda found, *_: found)
    with torch.inference_mode():
        (expected,) = theirs([torch.from_numpy(image).permute(2, 0, 1) / 255])
    found = detector(image)
    assert len(found) == len(expected["scores"]) > 5
    assert [found.category_ids[label] for label in found.labels] == expected["labels"].tolist()
    np.testing.assert_allclose(found.scores, expected["scores"].numpy(), atol=1e-4)
    np.testing.assert_allclose(found.boxes, expected["boxes"].numpy(), atol=0.01)
    if "masks" in expected:
        detections = detector.model.predict(detector._on_device([detector._sample(image)]))  # pyright: ignore[reportCallIssue]
        cells = detections.masks[detections.valid]
        torch.testing.assert_close(cells, expected["masks"][:, 0], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "name",
    [V1, MASK_V2, *(pytest.param(name, marks=pytest.mark.slow) for name in TORCHVISION if name not in (V1, MASK_V2))],
)
def test_a_name_is_a_detector_that_finds_what_torchvision_finds(
    name: str, in_the_cache: Callable[[str], FasterRCNN], hub: Path
) -> None:
    check_same(name, in_the_cache(name))
    for file in hub.iterdir():
        file.unlink()
    assert resdet.load(name, device="cpu").origin is not None, "it is converted once"


@pytest.mark.slow
def test_a_file_of_torchvision_is_a_detector_too(
    in_the_cache: Callable[[str], FasterRCNN], hub: Path, tmp_path: Path
) -> None:
    theirs = in_the_cache(MASK_V2)
    file = next(hub.iterdir()).rename(tmp_path / "mine.pth")
    check_same(str(file), theirs)


def test_a_file_that_is_no_detector_of_a_known_toolkit_is_one_line(hub: Path, tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "mine.pth")
    with pytest.raises(UserError, match="is no detector of torchvision or Detectron2"):
        _ = resdet.load(tmp_path / "mine.pth")


def test_without_network_and_file_one_line_says_how_to_get_it(
    hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "photo.jpg"
    _ = photo.write_bytes(b"")
    assert main(["predict", MASK_V2, str(photo)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    known = published_detector(MASK_V2)
    assert known.url in said
    assert f"put it at {known.file}" in said
    assert known.file.parent == hub


def test_a_file_with_another_content_than_its_name_promises_is_refused(hub: Path) -> None:
    known = published_detector(V1)
    _ = known.file.write_bytes(b"something else")
    with pytest.raises(UserError, match="damaged or another file"):
        _ = resdet.load(V1)


def test_a_file_of_the_zoo_is_checked_by_the_md5_in_its_name(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"fetch https://dl.fbaipublicfiles.com/detectron2/COCO-.* put it at"):
        _ = resdet.load(ZOO_NAME)
    _ = published_detector(ZOO_NAME).file.write_bytes(b"something else")
    with pytest.raises(UserError, match=r"model_final_f10217\.pkl: damaged or another file, its md5 begins with"):
        _ = resdet.load(ZOO_NAME)
    with pytest.raises(UserError, match=f"did you mean '{ZOO_NAME}'"):
        _ = resdet.load(ZOO_NAME.replace("FPN", "fpn").lower())


def test_a_name_that_is_no_model_gets_a_suggestion(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("fasterrcn_resnet50_fpn_v2", "MaskRCNN_ResNet50_FPN_v2"):
        with pytest.raises(UserError, match=r"did you mean '(faster|mask)rcnn_resnet50_fpn_v2', a published detector"):
            _ = resdet.load(name)
    assert main(["models", "maskrcnn"]) == 2
    assert "is no published detector" in capsys.readouterr().err
    with pytest.raises(UserError, match="no such file or folder; give a run"):
        _ = resdet.load("runs/nothing")


def test_a_run_with_the_name_of_a_detector_comes_first(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / V1).mkdir()
    with pytest.raises(UserError, match="neither a run nor a checkpoint"):
        _ = resdet.load(V1)


def test_the_list_has_torchvisions_own_figures(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.endswith((" no", " yes"))] == list(PUBLISHED)
    assert max(map(len, lines[len(TORCHVISION) + 3 :])) <= 110
    row = next(line.split() for line in lines if line.startswith(f"{MASK_V2} "))
    assert row[1:3] == ["0.474", "0.418"]
    assert row[-1] == "no"
    assert "models" in COMMANDS
    assert main(["models", MASK_V2]) == 0
    said = capsys.readouterr().out
    assert main(["models", ZOO_NAME]) == 0
    said += capsys.readouterr().out
    for part in ("box AP 0.410, mask AP 0.372", "CC BY-SA 3.0", "put it at", "137849600/model_final_f10217.pkl"):
        assert part in said
    for part in ("box AP 0.474", "46,359,409 parameters", "BSD-3-Clause", "https://download.pytorch.org/"):
        assert part in said
