"""Annotation files become arrays, and what they must not contain is named."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from resdet.coco.reader import AREA
from resdet.data.sets.coco import CocoDataset
from resdet.data.sets.formats import read_set
from resdet.errors import UserError

TRIANGLE = [10.0, 10.0, 30.0, 10.0, 10.0, 30.0]


def content() -> dict[str, Any]:
    """Two images of 100 x 80 pixels (width x height), three objects, category ids neither dense nor sorted."""
    return {
        "images": [
            {"id": 7, "file_name": "b.jpg", "height": 80, "width": 100},
            {"id": 3, "file_name": "sub/a.jpg", "height": 80, "width": 100},
        ],
        "annotations": [
            {"id": 0, "image_id": 3, "category_id": 17, "bbox": [1, 2, 30, 40], "area": 600, "iscrowd": 0},
            {"id": 5, "image_id": 7, "category_id": 90, "bbox": [10, 10, 20, 20], "segmentation": [TRIANGLE]},
            {"id": 2, "image_id": 3, "category_id": 1, "bbox": [0, 0, 50, 50], "area": 2500, "iscrowd": 1},
        ],
        "categories": [{"id": 90, "name": "ring"}, {"id": 1, "name": "star"}, {"id": 17, "name": "heart"}],
    }


class Folder:
    """An annotation file beside its images."""

    def __init__(self, path: Path) -> None:
        self.json, self.images = path / "a.json", path / "images"
        (self.images / "sub").mkdir(parents=True)
        for name in ("b.jpg", "sub/a.jpg"):
            (self.images / name).touch()

    def read(self, data: dict[str, Any] | str | bytes, **options: Any) -> CocoDataset:
        text = json.dumps(data) if isinstance(data, dict) else data
        _ = self.json.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_set(self.json, self.images, **options)

    def refusal(self, data: dict[str, Any] | str | bytes, **options: Any) -> str:
        with pytest.raises(UserError) as error:
            _ = self.read(data, **options)
        message = str(error.value)
        assert "\n" not in message
        assert message.isprintable()
        return message


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def with_annotation(**fields: Any) -> dict[str, Any]:
    data = content()
    data["annotations"][1] |= fields
    return data


def with_image(**fields: Any) -> dict[str, Any]:
    data = content()
    data["images"][1] |= fields
    return data


def test_annotations_are_grouped_by_image_in_the_order_of_the_file(folder: Folder) -> None:
    dataset = folder.read(content())
    assert dataset.image_ids.tolist() == [7, 3]
    assert [dataset.file_names[index] for index in range(2)] == ["b.jpg", "sub/a.jpg"]
    assert dataset.offsets.tolist() == [0, 1, 3]
    assert dataset.annotation_ids.tolist() == [5, 0, 2]
    assert dataset.boxes.tolist() == [[10, 10, 30, 30], [1, 2, 31, 42], [0, 0, 50, 50]]
    assert dataset.crowd.tolist() == [False, False, True]


def test_labels_follow_ascending_category_ids(folder: Folder) -> None:
    dataset = folder.read(content())
    assert dataset.category_ids.tolist() == [1, 17, 90]
    assert dataset.class_names == ("star", "heart", "ring")
    assert dataset.category_ids[dataset.labels].tolist() == [90, 17, 1]


def test_polygons_are_kept_with_their_annotation(folder: Folder) -> None:
    masks = folder.read(content()).segmentations
    assert masks.present().tolist() == [True, False, False]
    assert masks.polygons(0)[0].tolist() == [[10, 10], [30, 10], [10, 30]]


def test_taking_images_takes_their_annotations_and_masks(folder: Folder) -> None:
    dataset = folder.read(content()).take(np.array([1, 0]))
    assert dataset.image_ids.tolist() == [3, 7]
    assert dataset.annotation_ids.tolist() == [0, 2, 5]
    assert dataset.offsets.tolist() == [0, 2, 3]
    assert dataset.segmentations.polygons(2)[0].tolist() == [[10, 10], [30, 10], [10, 30]]
    assert dataset.path(0).name == "a.jpg"


def test_the_counts_of_the_report_add_up(folder: Folder) -> None:
    data = content()
    boxes = {20: [5, 5, 0, 9], 21: [5, 5, -5, 9], 22: [5, 5, 1e-6, 9], 23: [100, 0, 9, 9], 24: [95.5, 5, 5, 5]}
    data["annotations"] += [
        {"id": number, "image_id": 7, "category_id": 1, "bbox": box, "area": 9} for number, box in boxes.items()
    ] + [{"id": 30, "image_id": 999, "category_id": 1, "bbox": [1, 1, 5, 5], "area": 25}]
    dataset = folder.read(data)
    report = dataset.report
    assert report.skipped["box without area"].examples == [20, 21, 22]
    assert report.skipped["box outside its image"].examples == [23]
    assert report.skipped["image_id of no image"].examples == [30]
    assert report.annotations_read == 9 == report.annotations_kept + sum(note.count for note in report.skipped.values())
    assert report.fixed["box clipped to its image"].examples == [24]
    assert dataset.boxes[dataset.annotation_ids == 24].tolist() == [[95.5, 5, 100, 10]]
    assert json.loads(json.dumps(report.to_dict()))["skipped"]["box without area"]["count"] == 3
    assert "skipped 3 (box without area)" in report.summary()


def test_a_missing_area_is_that_of_the_mask_or_else_of_the_box(folder: Folder) -> None:
    dataset = folder.read(content())
    assert 180 <= dataset.areas[0] <= 220  # half of 20 x 20, up to its staircase
    assert dataset.areas[1:].tolist() == [600, 2500]
    assert dataset.report.fixed[AREA].examples == [5]
    assert folder.read(with_annotation(area=-1, segmentation=[])).areas[0] == 400


def test_an_image_of_crowd_alone_is_kept_and_counted(folder: Folder) -> None:
    report = folder.read(with_annotation(iscrowd=1)).report
    assert report.images_with_crowd_only == 1
    assert (report.objects, report.crowd) == (1, 2)


def test_images_without_objects_are_fine_unless_all_are(folder: Folder) -> None:
    data = content() | {"annotations": []}
    assert folder.read(data).report.images_without_objects == 2
    assert "no image has an object" in folder.refusal(data, require_objects=True)


def test_classes_that_share_a_name_are_told_apart(folder: Folder) -> None:
    data = content()
    data["categories"][0]["name"] = "star"
    dataset = folder.read(data)
    assert dataset.class_names == ("star (id 1)", "heart", "star (id 90)")
    assert sum(note.count for note in dataset.report.fixed.values()) == 3  # two names, one area


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"category_id": 2}, ["annotation id 5", "image id 7", "'category_id' 2", "1, 17, 90"]),
        ({"category_id": -1}, ["annotation id 5", "category_id"]),
        ({"bbox": [1, 1, 1e308, 5]}, ["annotation id 5", "image id 7", "bbox", "1e+308"]),
        ({"bbox": [1, 1, 5]}, ["id 5", "image_id 7", "bbox", "[1, 1, 5]"]),
        ({"bbox": ["one", 1, 5, 5]}, ["id 5", "bbox", "str"]),
        ({"bbox": ["nan", 1, 5, 5]}, ["annotation id 5", "bbox", "nan"]),
        ({"bbox": None}, ["id 5", "bbox", "null"]),
        ({"area": 1e308}, ["annotation id 5", "area"]),
        ({"iscrowd": 2}, ["annotation id 5", "iscrowd"]),
        ({"id": "five"}, ["'id'", '"five"', "int"]),
        ({"id": 5.5}, ["'id'", "5.5", "int"]),
        ({"id": 2**70}, ["'id'"]),
        ({"image_id": "b.jpg"}, ["id 5", "image_id", "int"]),
        ({"id": 0}, ["duplicate annotation ids: 0"]),
        ({"segmentation": [[1e308, 1, 2, 2, 3, 3]]}, ["annotation id 5"]),
        ({"segmentation": [[1e100, 1, 2, 2, 3, 3]]}, ["annotation id 5", "segmentation", "1e+100"]),
        ({"segmentation": {"size": [100, 80], "counts": [8000]}}, ["annotation id 5", "segmentation", "[80, 100]"]),
        ({"segmentation": {"size": [80, 100], "counts": [7999]}}, ["annotation id 5", "80 x 100"]),
        ({"segmentation": {"size": [80, 100], "counts": [8001, -1]}}, ["annotation id 5", "80 x 100"]),
        ({"segmentation": {"size": [80, 100], "counts": "~~~garbage"}}, ["annotation id 5", "80 x 100"]),
        ({"segmentation": {"size": [80, 100], "counts": ""}}, ["annotation id 5", "80 x 100"]),
        ({"segmentation": {"size": [80, 100], "counts": ["8000"]}}, ["annotation id 5", "run-length"]),
        ({"segmentation": {"size": [80, 100], "counts": [2**70]}}, ["annotation id 5", "80 x 100"]),
    ],
)
def test_what_an_annotation_cannot_mean_is_an_error_that_names_it(
    folder: Folder, fields: dict[str, Any], words: list[str]
) -> None:
    message = folder.refusal(with_annotation(**fields))
    for word in [str(folder.json), *words]:
        assert word in message


@pytest.mark.parametrize(
    ("polygon", "reason"),
    [
        ([], "polygon with fewer than 3 points"),
        ([1, 1, 2, 2], "polygon with fewer than 3 points"),
        ([1, 1, 5, 5, 9, 1, 3], "polygon with an odd number of coordinates"),
        ([1, 1, 2e8, 5, 9, 1], "polygon far outside its image"),
        ([-2e8, 1, 5, 5, 9, 1], "polygon far outside its image"),
        ("1 1 5 5", "malformed polygon"),
        ([["1", "1"], ["2", "2"]], "malformed polygon"),
        ([[[1, 1, 5, 5, 9, 1]]], "malformed polygon"),
    ],
)
def test_an_unusable_polygon_costs_the_mask_and_not_the_box(folder: Folder, polygon: Any, reason: str) -> None:
    dataset = folder.read(with_annotation(segmentation=[polygon]))
    assert dataset.report.skipped_masks[reason].examples == [5]
    assert 5 in dataset.annotation_ids
    assert not dataset.segmentations.present().any()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' decode
def test_a_polygon_slightly_outside_is_cut_at_the_border(folder: Folder) -> None:
    """It keeps its shape: the pixels are those that a larger image would show there, up to one along the outline.

    pycocotools rounds coordinates below zero towards zero and all others to the nearest pixel.
    """
    polygon = [-20, 10, 130, 10, 10, 90]
    dataset = folder.read(with_annotation(segmentation=[polygon]))
    assert dataset.report.fixed["polygon cut at its image's border"].examples == [5]
    mask: Any = coco_mask.decode(dataset.segmentations.encoded(0, 80, 100))  # pyright: ignore[reportArgumentType]
    moved = [[value + 50 for value in polygon]]
    larger: Any = coco_mask.decode(coco_mask.frPyObjects(moved, 200, 250))  # pyright: ignore
    shown, cross = larger[50:130, 50:150, 0], np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
    assert (mask >= cv2.erode(shown, cross)).all()
    assert (mask <= cv2.dilate(shown, cross)).all()
    assert (mask != shown).sum() <= 2


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("field", ["bbox", "segmentation", "area"])
def test_numbers_that_are_none_are_pointed_at(folder: Folder, literal: str, field: str) -> None:
    value: Any = {"bbox": [1, 1, 5, "@"], "segmentation": [[1, 1, "@", 2, 3, 3]], "area": "@"}[field]
    text = json.dumps(with_annotation(**{field: value}), indent=1).replace('"@"', literal)
    line = text[: text.index(literal)].count("\n") + 1
    message = folder.refusal(text)
    assert literal.removeprefix("-") in message
    assert f"line {line}" in message


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "empty"),
        ("[]", "object"),
        ("{}", "'images' is missing"),
        ('{"images": 5, "annotations": [], "categories": []}', "images"),
        ("<html>", "byte 0"),
        (json.dumps(content())[:-40], "truncated"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"images": [{"id": 1, "file_name": "\xff", "height": 1, "width": 1}]}', "UTF-8"),
        ('{"x": ' + "[" * 100_000, "nested"),
    ],
)
def test_a_file_that_is_no_annotation_file_is_an_error(folder: Folder, text: str | bytes, word: str) -> None:
    assert word in folder.refusal(text)


def test_a_missing_annotation_file_is_an_error(folder: Folder) -> None:
    with pytest.raises(UserError, match=r"nowhere\.json: No such file"):
        _ = read_set(folder.json.with_name("nowhere.json"), folder.images)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda data: data["images"].append(copy.copy(data["images"][0])), "duplicate image ids: 7"),
        (lambda data: data["categories"].append(copy.copy(data["categories"][0])), "duplicate category ids: 90"),
        (lambda data: data["categories"].clear(), "'categories' is empty"),
        (lambda data: data["images"].clear(), "'images' is empty"),
        (lambda data: data.pop("images"), "'images' is missing"),
        (lambda data: data["images"][0].pop("height"), "height"),
        (lambda data: data["images"][0].update(height=0), "height 0"),
        (lambda data: data["images"][0].update(width=30_000), "width 30000"),
    ],
)
def test_lists_that_contradict_themselves_are_errors(folder: Folder, change: Any, word: str) -> None:
    data = content()
    change(data)
    assert word in folder.refusal(data)


def test_five_duplicate_annotation_ids_are_listed(folder: Folder) -> None:
    data = content()
    data["annotations"] += [data["annotations"][1] | {"id": number} for number in (11, 12, 13, 14, 15, 16)] * 2
    assert "duplicate annotation ids: 11, 12, 13, 14, 15 and 1 more" in folder.refusal(data)


def test_corners_given_for_sizes_are_recognized(folder: Folder) -> None:
    data = content()
    corners = [[60, 40, 90, 70], [50, 50, 99, 79], [10, 60, 20, 75], [2, 2, 9, 9]]
    data["annotations"] = [
        {"id": number, "image_id": 7, "category_id": 1, "bbox": box} for number, box in enumerate(corners)
    ]
    assert "xyxy" in folder.refusal(data)


def test_fractions_given_for_pixels_are_recognized(folder: Folder) -> None:
    data = content()
    data["annotations"] = [
        {"id": number, "image_id": 7, "category_id": 1, "bbox": [0.1, 0.2, 0.3, 0.4]} for number in range(3)
    ]
    assert "fractions" in folder.refusal(data)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../a.jpg", "sub/../../a.jpg", "..\\a.jpg", "C:\\a.jpg", "a\0.jpg", "", "http://h/a.jpg"]
)
def test_a_name_that_leaves_the_images_folder_is_refused(folder: Folder, name: str) -> None:
    message = folder.refusal(with_image(file_name=name))
    assert "file_name" in message
    assert "image id 3" in message


@pytest.mark.parametrize("link", ["file", "folder"])
def test_a_link_that_leaves_the_images_folder_is_refused(folder: Folder, tmp_path: Path, link: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.jpg").touch()
    place = folder.images / ("out" if link == "folder" else "out.jpg")
    place.symlink_to(outside if link == "folder" else outside / "a.jpg")
    name = "out/a.jpg" if link == "folder" else "out.jpg"
    assert "file_name" in folder.refusal(with_image(file_name=name))
    assert len(folder.read(content())) == 2  # a link that no name speaks of is no concern of ours


def test_a_link_in_a_circle_is_no_image_and_no_concern_of_the_others(folder: Folder) -> None:
    (folder.images / "circle.jpg").symlink_to("circle.jpg")
    assert len(folder.read(content())) == 2
    assert "1 of 2 image files" in folder.refusal(with_image(file_name="circle.jpg"))


def test_links_inside_the_images_folder_are_fine(folder: Folder) -> None:
    (folder.images / "c.jpg").symlink_to("b.jpg")
    assert len(folder.read(with_image(file_name="c.jpg"))) == 2


def test_missing_images_are_found_at_once(folder: Folder) -> None:
    message = folder.refusal(with_image(file_name="nowhere/\x1b[31m.jpg"))
    assert "1 of 2 image files" in message
    assert "x1b[31m.jpg" in message
    dataset = folder.read(with_image(file_name="nowhere.jpg"), max_missing_fraction=0.5)
    assert dataset.report.missing_files == ["nowhere.jpg"]


def test_a_folder_or_pipe_is_no_image_file(folder: Folder) -> None:
    os.mkfifo(folder.images / "pipe.jpg")
    for name in ("sub", "pipe.jpg"):
        assert "missing" in folder.refusal(with_image(file_name=name))


def test_a_missing_images_folder_is_an_error(folder: Folder) -> None:
    _ = folder.read(content())
    with pytest.raises(UserError, match="nowhere: No such file"):
        _ = read_set(folder.json, folder.images / "nowhere")


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "images", "objects", "crowd"),
    [("coco-mini", 412, 3388, 38), ("bccd", 205, 2805, 0), ("facemask", 677, 3106, 0), ("nuclei", 424, 11880, 0)],
)
def test_real_files_are_read_without_loss(name: str, images: int, objects: int, crowd: int) -> None:
    root = Path(__file__).parents[4] / "shared" / "data" / name
    if not root.is_dir():
        pytest.skip(f"{root} is absent")
    folder = root / ("JPEGImages" if name == "bccd" else "train")
    report = read_set(root / "annotations" / "instances_train.json", folder).report
    assert (report.images, report.objects, report.crowd, report.skipped) == (images, objects, crowd, {})
