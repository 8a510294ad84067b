"""`resdet new`: the suggested numbers follow from the data, and the file is a config that trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resdet.cli.main import main
from resdet.config import load_config
from resdet.config.load import config_from_yaml
from resdet.errors import UserError
from resdet.workflows.fitted_config import Measured, anchors_for, covered, fitted_config, short_side_for


def write_set(
    folder: Path, *, side: int = 20, objects: int = 3, masks: bool = False, classes: Any = ("a", "b")
) -> Path:
    """Two splits of three grey images of 100 x 160 pixels with squares."""
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
        images: list[Any] = []
        annotations: list[Any] = []
        for number in range(1, 4):
            Image.fromarray(np.full((100, 160, 3), 100, np.uint8)).save(folder / split / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "height": 100, "width": 160})
            for index in range(objects):
                x, y = 5 + 3 * index % 100, 10
                polygon = [[x, y, x + side, y, x + side, y + side, x, y + side]]
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": number, "category_id": 1 + index % 2, "iscrowd": 0,
                     "bbox": [x, y, side, side], "area": side * side, "segmentation": polygon if masks else []}
                )  # fmt: skip
        categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "annotations").mkdir(exist_ok=True)
        _ = (folder / f"annotations/instances_{split}.json").write_text(json.dumps(content))
    return folder


def test_an_anchor_that_is_the_object_covers_it_and_one_of_half_its_area_does_just() -> None:
    one, two = np.array([32.0]), np.array([64.0])
    assert covered(one, one, [32.0], [1.0]) == 1.0
    assert covered(two, one, [32.0], [1.0]) == 1.0, "32 x 64 and 32 x 32: an overlap of one half"
    assert covered(two + 1, one, [32.0], [1.0]) == 0.0
    assert covered(two, one, [np.sqrt(2) * 32], [0.5]) == 1.0, "height over width is one half"


def test_anchors_are_the_default_where_they_do_and_smaller_or_longer_where_not() -> None:
    usual = np.array([40.0, 70.0, 130.0, 300.0, 500.0])
    assert anchors_for(usual, usual) == ([32.0, 64.0, 128.0, 256.0, 512.0], [0.5, 1.0, 2.0], 1.0)
    assert anchors_for(usual / 4, usual / 4)[0][0] == 8.0
    sizes, ratios, share = anchors_for(np.full(5, 20.0), np.full(5, 160.0))
    assert (ratios, share) == ([8.0], 1.0)
    assert len(sizes) == 5


def test_images_become_so_large_that_small_objects_have_24_pixels_and_at_most_twice_as_large() -> None:
    def of(side: float, images: float) -> Measured:
        return Measured(float(images), 1.5, np.full(10, float(side)), np.full(10, float(side)), 3, 10, 0.0)

    assert short_side_for(of(24, 480), "cuda") == 480
    assert short_side_for(of(48, 640), "cuda") == 320
    assert short_side_for(of(8, 300), "cuda") == 608, "twice, in steps of 32"
    assert short_side_for(of(8, 1000), "cuda") == 800
    assert short_side_for(of(8, 1000), "cpu") == 480


def test_the_file_is_a_config_for_the_data_and_every_line_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, file = write_set(tmp_path / "my data: #1", masks=True, objects=90), tmp_path / "mine.yaml"
    assert main(["new", str(file), "--data", str(data), "--device", "cpu"]) == 0
    assert f"wrote {file}; next: resdet train" in capsys.readouterr().out
    config = load_config(file)
    assert config.data.path == [str(data)]
    assert config.model.mask_head is not None
    assert config.model.box_head is not None
    assert config.model.box_head.detections == 112, "a quarter more than 90"
    assert config.data.augment.short_side == [config.data.augment.test_short_side] == [256]
    assert config.data.augment.max_side == 416, "160 of 100 pixels: 410"
    assert config.train.epochs == 60
    text = file.read_text()
    values = [line for line in text.splitlines() if line.startswith(" ") and not line.rstrip().endswith(":")]
    assert [line for line in values if "  # " not in line] == []
    small = ["model.backbone.name=nano", "train.batch_size=1", "train.channels_last=false"]
    assert main(["train", str(file), "model.backbone.weights=null", *small, "--dry-run"]) == 0


def test_check_data_suggests_what_new_writes_for_this_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    data = write_set(tmp_path / "data", objects=90)
    assert main(["check-data", str(data)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("Suggested for these objects on this") == 1
    config = config_from_yaml(fitted_config(data), "the file of resdet new")
    head = config.model.box_head
    assert head is not None
    for key, value in (
        ("data.augment.short_side", config.data.augment.short_side),
        ("model.anchors.sizes", [f"{size:g}" for size in config.model.anchors.sizes]),
        ("train.epochs", f"{config.train.epochs:g}"),
        ("model.box_head.detections", head.detections),
    ):
        (line,) = [line for line in printed.splitlines() if key in line]
        assert f"  {value}  ".replace("'", "") in line


def test_check_data_without_objects_suggests_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-data", str(write_set(tmp_path / "data", objects=0))]) == 0
    assert "Suggested" not in capsys.readouterr().out


def test_a_file_that_exists_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _ = (tmp_path / "mine.yaml").write_text("mine")
    for name, message in (("mine.yaml", "exists already"), ("mine.txt", "ends in .yaml")):
        assert main(["new", str(tmp_path / name), "--data", str(tmp_path)]) == 2
        assert message in capsys.readouterr().err
    assert (tmp_path / "mine.yaml").read_text() == "mine"


def test_a_name_of_a_class_is_a_comment_and_no_line_of_its_own(tmp_path: Path) -> None:
    data = write_set(tmp_path / "data", classes=("a\ntrain: {steps: 1}", "b"))
    assert "\ntrain: {steps: 1}" not in fitted_config(data)


def test_splits_of_other_categories_are_one_line(tmp_path: Path) -> None:
    data = write_set(tmp_path / "data")
    content = json.loads((data / "annotations/instances_val.json").read_text())
    content["categories"][1]["name"] = "c"
    _ = (data / "annotations/instances_val.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="categor"):
        _ = fitted_config(data)
