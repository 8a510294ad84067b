"""What a ground truth may hold, what is filled in, and what is refused with the entry's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from resdet.errors import UserError
from resdet.evaluation.coco import CocoResults, evaluate_coco, ground_truth_from_dict, read_ground_truth

NAN, INFINITY = float("nan"), float("inf")


def data(**annotation: Any) -> dict[str, Any]:
    """One image of 10 x 20 pixels with one annotation."""
    whole = {"id": 0, "image_id": 7, "category_id": 3, "bbox": [1, 2, 5, 4], "area": 20, "iscrowd": 0} | annotation
    return {
        "images": [{"id": 7, "height": 10, "width": 20}],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [{name: value for name, value in whole.items() if value is not ...}],
    }


def test_columns_hold_positions_in_sorted_ids() -> None:
    content = data()
    content["images"].insert(0, {"id": 9})
    content["categories"].insert(0, {"id": 1, "name": "dog"})
    truth = ground_truth_from_dict(content)
    assert truth.image_ids.tolist() == [7, 9]
    assert truth.sizes.tolist() == [[10, 20], [0, 0]]
    assert truth.class_names == ("dog", "cat")
    assert (truth.image.tolist(), truth.label.tolist(), truth.boxes.tolist()) == ([0], [1], [[1, 2, 5, 4]])
    assert truth.filled == {}


def test_missing_areas_and_crowd_flags_are_filled_and_counted() -> None:
    truth = ground_truth_from_dict(data(area=..., iscrowd=...))
    assert truth.areas.tolist() == [20]
    assert truth.crowd.tolist() == [False]
    assert truth.filled == {"area": 1, "iscrowd": 1}
    assert [note.split(": ")[1] for note in truth.notes()] == [
        "1 of 1 annotations without iscrowd",
        "1 of 1 annotations without area",
    ]


def test_a_missing_area_is_that_of_the_mask() -> None:
    triangle = [[0, 0, 8, 0, 8, 8]]
    truth = ground_truth_from_dict(data(area=..., segmentation=triangle, bbox=[0, 0, 8, 8]))
    assert 28 <= truth.areas[0] <= 36  # half of 8 x 8, up to its staircase


def test_difficult_objects_are_marked() -> None:
    assert ground_truth_from_dict(data(difficult=1)).difficult.all()
    assert ground_truth_from_dict(data(ignore=True)).difficult.all()
    assert not ground_truth_from_dict(data()).difficult.any()


def test_a_name_used_twice_is_told_apart_by_its_id() -> None:
    content = data()
    content["categories"] += [{"id": 4, "name": "cat"}, {"id": 5}]
    assert ground_truth_from_dict(content).class_names == ("cat (id 3)", "cat (id 4)", "category (id 5)")


def test_ids_as_strings_are_read_as_numbers() -> None:
    truth = ground_truth_from_dict(data(image_id="7", category_id="3"))
    assert (truth.image.tolist(), truth.label.tolist()) == ([0], [0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 8}, r"annotation 0 \(image_id 8\): image_id 8 is not among the file's images"),
        ({"category_id": -1}, r"annotation 0 \(image_id 7\): category_id -1 is not among the file's categories"),
        ({"bbox": [NAN, 0, 1, 1]}, r"annotation 0 \(image_id 7\): bbox is \[nan, 0.0, 1.0, 1.0\]"),
        ({"bbox": [0, 0, INFINITY, 1]}, r"bbox is .*inf.*finite"),
        ({"bbox": [0, 0, 1e308, 1]}, r"bbox is .*1e\+308.*finite"),
        ({"bbox": [0, 0, -5, 1]}, r"bbox is .*-5.*no negative size"),
        ({"bbox": [0, 0, 5]}, r"annotation 0 \(image_id 7\): bbox"),
        ({"area": NAN}, r"annotation 0 \(image_id 7\): area is nan"),
        ({"area": -1}, r"area is -1"),
        ({"bbox": None}, r"bbox"),
        ({"bbox": ...}, r"bbox"),
        ({"image_id": 2**70}, r"64-bit"),
    ],
)
@pytest.mark.parametrize("from_file", [False, True])
def test_what_cannot_be_scored_is_refused_by_name(
    change: dict[str, Any], message: str, tmp_path: Path, *, from_file: bool
) -> None:
    content = data(**change)
    path = tmp_path / "truth.json"
    _ = path.write_text(json.dumps(content))  # NaN and Infinity as Python writes them
    with pytest.raises(UserError, match=message) as caught:
        _ = read_ground_truth(path) if from_file else ground_truth_from_dict(content)
    assert "\n" not in str(caught.value)


def test_ids_of_images_and_categories_are_unique() -> None:
    for table in ("images", "categories"):
        content = data()
        content[table] *= 2
        with pytest.raises(UserError, match="occur more than once"):
            _ = ground_truth_from_dict(content)


@pytest.mark.parametrize("table", ["images", "categories"])
def test_without_images_or_categories_nothing_can_be_scored(table: str) -> None:
    with pytest.raises(UserError, match=r"holds no (image|category)"):
        _ = ground_truth_from_dict({**data(), table: [], "annotations": []})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not valid JSON"),
        ('{"images": [', "not valid JSON"),
        ("[]", "expected a COCO annotation file"),
        ('{"images": []}', "annotations"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_a_file_of_another_kind_is_refused_in_one_line(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    _ = path.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        _ = read_ground_truth(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.json: cannot be read \(No such file"):
        _ = read_ground_truth(tmp_path / "absent.json")
    with pytest.raises(UserError, match="directory"):
        _ = read_ground_truth(tmp_path)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "has no segmentation"),
        ([], "has no segmentation"),
        ("abc", "neither a list of polygons nor"),
        ([[NAN, 0, 5, 0, 5, 5]], "leaves the image of 10x20"),
        ([[2e8, 0, 5, 0, 5, 5]], "leaves the image of 10x20"),
        ([[1, 1, 5, 0, 5]], "flat list"),
        ([[[1, 1], [5, 0], [5, 5]]], "flat list"),
        (["15"], "flat list"),
        ({"size": [20, 10], "counts": [200]}, "mask's size is"),
    ],
)
def test_a_mask_that_cannot_be_drawn_is_refused_by_name(segmentation: Any, message: str) -> None:
    truth = ground_truth_from_dict(data(segmentation=segmentation))
    with pytest.raises(UserError, match=rf"annotation 0 \(image_id 7\): .*{message}"):
        _ = evaluate_coco(truth, CocoResults(), iou_type="segm")


def test_polygons_that_enclose_nothing_are_left_out() -> None:
    """Two points would be taken for a box by pycocotools."""
    truth = ground_truth_from_dict(data(segmentation=[[1, 1, 5, 5]]))
    assert evaluate_coco(truth, CocoResults(), iou_type="segm")["segm/AP"] is None


def test_masks_need_the_size_of_their_image() -> None:
    content = data(segmentation=[[0, 0, 8, 0, 8, 8]])
    content["images"] = [{"id": 7}]
    with pytest.raises(UserError, match="image 7: height 0 and width 0"):
        _ = evaluate_coco(ground_truth_from_dict(content), CocoResults(), iou_type="segm")
