"""A converted data set is the same data set: boxes to the precision of the format, and what is lost is counted."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from layout_folders import OBJECTS, TRAIN, VAL, WRITERS, picture, text, yolo_ultralytics
from resdet.cli.main import main
from resdet.data.images.decode import image_size
from resdet.data.sets.coco import CocoDataset
from resdet.data.sets.opened import open_folder
from resdet.data.sets.writers import WRITERS as FORMATS
from resdet.errors import UserError
from resdet.workflows.convert_data import convert_data

SIZE = (400, 300)  # width, height
PRECISION = {"coco": 1e-9, "shards": 1e-9, "csv": 1e-9, "voc": 1e-6, "yolo": 1e-5}  # pixels, of the corners
NAMES = ("bee", "a & <b>", '[red]x[/red], "y"')


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESDET_CACHE", str(tmp_path_factory.mktemp("cache")))


@st.composite
def boxes(draw: st.DrawFn) -> tuple[float, float, float, float]:
    """x, y, width, height inside the image, at least two pixels a side: boxes of one at 0 look like fractions."""
    width, height = (draw(st.floats(2, side)) for side in SIZE)
    left, top = (draw(st.floats(0, 1)) * (side - own) for side, own in zip(SIZE, (width, height), strict=True))
    return left, top, width, height


@st.composite
def polygons(draw: st.DrawFn) -> list[float]:
    """A convex polygon, whose points are fifths of a pixel."""
    x, y = draw(st.integers(0, 1000)), draw(st.integers(0, 700))
    width, height = draw(st.integers(50, 900)), draw(st.integers(50, 700))
    return [n / 5 for n in (x, y, x + width, y, x + width, y + height, x, y + height // 2)]


def coco_folder(root: Path, objects: list[dict[str, Any]]) -> Path:
    """Two images, of which the second has no objects."""
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": SIZE[0], "height": SIZE[1]} for n in (3, 5)],
        "categories": [{"id": 10 * n, "name": name} for n, name in enumerate(NAMES, start=1)],
        "annotations": [{"id": n, "image_id": 3, "iscrowd": 0, **one} for n, one in enumerate(objects, start=1)],
    }
    text(root / "annotations/instances_train.json", json.dumps(content))
    for n in (3, 5):
        picture(root / f"train/{n}.png", SIZE)
    return root


def labelled(dataset: CocoDataset) -> list[str]:
    return [dataset.class_names[label] for label in dataset.content.labels[: dataset.content.kept]]


@pytest.mark.parametrize("format", FORMATS)
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(given_boxes=st.lists(boxes(), min_size=3, max_size=6), seed=st.integers(0, 9))
def test_boxes_and_classes_survive(format: str, given_boxes: list[tuple[float, ...]], seed: int) -> None:
    objects = [{"category_id": 10 * (1 + (seed + n) % 3), "bbox": box} for n, box in enumerate(given_boxes)]
    with tempfile.TemporaryDirectory() as folder:
        before = open_folder(coco_folder(Path(folder) / "coco", objects), "train", whole=True)
        done = convert_data(before.annotations.parents[1], format, Path(folder) / "new")
        after = open_folder(done.folder, "train", whole=True)
        assert done.lost == {}
        assert sorted(after.class_names) == sorted(NAMES)
        assert labelled(after) == labelled(before)
        np.testing.assert_allclose(after.content.boxes, before.content.boxes, rtol=0, atol=PRECISION[format])
        assert after.objects_per_image().tolist() == [len(objects), 0]
        assert (after.heights.tolist(), after.widths.tolist()) == ([SIZE[1]] * 2, [SIZE[0]] * 2)
        assert after.report.skipped == {}


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(points=st.lists(polygons(), min_size=1, max_size=3))
def test_polygons_survive_yolo_and_coco(points: list[list[float]]) -> None:
    clipped = [[min(n, SIZE[at % 2]) for at, n in enumerate(one)] for one in points]
    objects = [{"category_id": 10, "segmentation": [one], "bbox": box_of(one), "area": 100} for one in clipped]
    with tempfile.TemporaryDirectory() as folder:
        before = open_folder(coco_folder(Path(folder) / "coco", objects), "train", whole=True)
        place = convert_data(before.annotations.parents[1], "yolo", Path(folder) / "yolo").folder
        again = convert_data(place, "coco", Path(folder) / "again").folder
        after = open_folder(again, "train", whole=True)
        for index in range(len(objects)):
            (old,), (new,) = (dataset.segmentations.polygons(index) for dataset in (before, after))
            np.testing.assert_allclose(new, old, rtol=0, atol=0.21)
        np.testing.assert_allclose(after.boxes, before.boxes, atol=0.21)


def box_of(points: list[float]) -> list[float]:
    xs, ys = points[::2], points[1::2]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def oddities(root: Path) -> Path:
    square = {"size": [SIZE[1], SIZE[0]], "counts": [0, 10, SIZE[0] * SIZE[1] - 10]}
    triangle, other = [10, 10, 60, 10, 10, 60], [100, 100, 160, 100, 100, 160]
    return coco_folder(
        root,
        [
            {"category_id": 10, "bbox": [10, 10, 50, 50], "segmentation": [triangle]},
            {"category_id": 10, "bbox": [10, 10, 150, 150], "segmentation": [triangle, other]},
            {"category_id": 20, "bbox": [0, 0, 1, 10], "segmentation": square},
            {"category_id": 20, "bbox": [0, 0, 30, 30], "iscrowd": 1},
            {"category_id": 20, "bbox": [5, 5, 30, 30], "difficult": 1},
            {"category_id": 20, "bbox": [5, 5, 0.5, 30]},
        ],
    )


LOST = {
    "coco": {},
    "shards": {},
    "yolo": {
        "masks that are not one polygon (the boxes stay)": 2,
        "crowd regions": 1,
        "marks of difficult objects (the objects stay)": 1,
    },
    "voc": {
        "masks (the boxes stay)": 3,
        "crowd regions": 1,
        "boxes under one pixel wide or high": 1,
        "classes without an object": 1,
    },
    "csv": {"masks (the boxes stay)": 3, "classes without an object": 1},
}
LEFT = {"coco": 6, "shards": 6, "yolo": 5, "voc": 4, "csv": 6}


@pytest.mark.parametrize("format", FORMATS)
def test_what_a_format_cannot_hold_is_counted(tmp_path: Path, format: str) -> None:
    done = convert_data(oddities(tmp_path / "coco"), format, tmp_path / "new")
    assert done.lost == LOST[format]
    after = open_folder(done.folder, "train", whole=True)
    assert len(after.boxes) == LEFT[format]
    marks = (after.report.crowd, after.report.difficult)
    assert marks == {"coco": (1, 1), "shards": (1, 1), "yolo": (0, 0), "voc": (0, 1), "csv": (1, 1)}[format]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_becomes_every_format(tmp_path: Path, layout: str, format: str) -> None:
    WRITERS[layout](tmp_path / "old")
    folder = convert_data(tmp_path / "old", format, tmp_path / "new").folder
    for split, names in (("train", TRAIN), ("val", VAL)):
        after = open_folder(folder, split)
        assert sorted(set(after.class_names)) == ["bee", "wasp"]
        assert after.objects_per_image().tolist() == [len(OBJECTS[stem]) for stem in names]
        found = [tuple(map(round, box)) for box in after.boxes.tolist()]
        assert found == [box for stem in names for _, box in OBJECTS[stem]]
        assert labelled(after) == [name for stem in names for name, _ in OBJECTS[stem]]


def test_images_of_one_name_stay_two(tmp_path: Path) -> None:
    text(tmp_path / "old/data.yaml", "train: [one, two]\nval: one\nnames: [bee]\n")
    for part, side in (("one", 40), ("two", 60)):
        picture(tmp_path / f"old/{part}/images/a.jpg", (side, 20))
        text(tmp_path / f"old/{part}/labels/a.txt", "0 0.5 0.5 0.5 0.5\n")
    for format in FORMATS:
        after = open_folder(convert_data(tmp_path / "old", format, tmp_path / format).folder, "train")
        assert sorted(after.widths.tolist()) == [40, 60]
        assert len({after.file_names[index] for index in range(2)}) == 2
        assert all(image_size(after.path(i)) == (after.heights[i], after.widths[i]) for i in range(2))


def test_stored_pixels_are_no_fractions_for_yolo(tmp_path: Path) -> None:
    root = oddities(tmp_path / "coco")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", SIZE).save(root / "train/3.png", exif=exif)
    with pytest.raises(UserError, match="is 300x400 pixels as it is seen, and its annotations are of 400x300"):
        _ = convert_data(root, "yolo", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    yolo_ultralytics(tmp_path / "old")
    arguments = ["convert-data", str(tmp_path / "old"), "--format", "voc", "--output", str(tmp_path / "new")]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "train: 3 images and 3 objects" in printed
    assert "lost" not in printed
    assert (tmp_path / "new/Annotations/a.xml").is_file()
    assert main(arguments) == 2
    assert "new: exists already and is not empty" in capsys.readouterr().err
    assert main([*arguments[:2], "--format", "vok", "--output", str(tmp_path / "other")]) == 2
    assert "--format=vok is not known; did you mean 'voc'?" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]


def test_an_annotation_file_needs_the_folder_of_its_images(tmp_path: Path) -> None:
    root = oddities(tmp_path / "coco")
    file = root / "annotations/instances_train.json"
    with pytest.raises(UserError, match="give also the folder of its images"):
        _ = convert_data(file, "csv", tmp_path / "new")
    assert convert_data(file, "csv", tmp_path / "new", images=root / "train").objects == {"train": 6}
