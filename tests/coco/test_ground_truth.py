"""What a ground truth may hold, what is mended or left out, and what is refused with the entry's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resdet.errors import UserError
from resdet.evaluation.coco import CocoResults, evaluate_coco, ground_truth_from_dict, read_ground_truth

NAN, INFINITY = float("nan"), float("inf")


def data(**annotation: Any) -> dict[str, Any]:
    """One image of 10 x 20 pixels (height x width) with one annotation."""
    whole = {"id": 0, "image_id": 7, "category_id": 3, "bbox": [1, 2, 5, 4], "area": 20, "iscrowd": 0} | annotation
    return {
        "images": [{"id": 7, "height": 10, "width": 20}],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [{name: value for name, value in whole.items() if value is not ...}],
    }


def perfect(box: list[float], *, score: float = 0.5) -> CocoResults:
    x, y, width, height = box
    results = CocoResults()
    results.add(7, np.array([[x, y, x + width, y + height]], float), np.array([score]), np.array([3]))
    return results


def test_columns_hold_positions_in_sorted_ids() -> None:
    content = data()
    content["images"].insert(0, {"id": 9})
    content["categories"].insert(0, {"id": 1, "name": "dog"})
    truth = ground_truth_from_dict(content)
    assert truth.image_ids.tolist() == [7, 9]
    assert truth.sizes.tolist() == [[10, 20], [0, 0]]
    assert truth.class_names == ("dog", "cat")
    assert (truth.image.tolist(), truth.label.tolist(), truth.boxes.tolist()) == ([0], [1], [[1, 2, 5, 4]])
    assert truth.notes() == []


def test_scoring_needs_neither_file_names_nor_sizes() -> None:
    content = data()
    content["images"] = [{"id": 7}]
    truth = ground_truth_from_dict(content)
    assert evaluate_coco(truth, perfect([1, 2, 5, 4]))["bbox/AP"] == pytest.approx(1)
    assert list(truth.file_names) == [""]


def test_a_missing_crowd_flag_is_0_and_a_missing_area_is_counted() -> None:
    truth = ground_truth_from_dict(data(area=..., iscrowd=...))
    assert truth.areas.tolist() == [20]
    assert truth.crowd.tolist() == [False]
    crowd, area = truth.notes()
    assert "1 of 1 annotations without iscrowd: taken as 0" in crowd
    assert "1 of 1 annotations: area missing or negative" in area


@pytest.mark.parametrize("area", [..., None, -1])
def test_an_area_that_is_none_is_that_of_the_mask(area: Any) -> None:
    triangle = [[0, 0, 8, 0, 8, 8]]
    truth = ground_truth_from_dict(data(area=area, segmentation=triangle, bbox=[0, 0, 8, 8]))
    assert 28 <= truth.areas[0] <= 36  # half of 8 x 8, up to its staircase


def test_difficult_objects_are_marked() -> None:
    assert ground_truth_from_dict(data(difficult=1)).difficult.all()
    assert ground_truth_from_dict(data(ignore=True)).difficult.all()
    assert not ground_truth_from_dict(data()).difficult.any()


def test_a_name_used_twice_is_told_apart_by_its_id() -> None:
    content = data()
    content["categories"] += [{"id": 4, "name": "cat"}, {"id": 5}]
    assert ground_truth_from_dict(content).class_names == ("cat (id 3)", "cat (id 4)", "category (id 5)")


def test_ids_as_text_are_read_as_numbers() -> None:
    truth = ground_truth_from_dict(data(image_id="7", category_id=3.0))
    assert (truth.image.tolist(), truth.label.tolist()) == ([0], [0])


LEFT_OUT = [
    ({"bbox": [1, 2, 0, 4]}, "box without area"),
    ({"bbox": [1, 2, -5, 4]}, "box without area"),
    ({"bbox": [6, 6, -5, -4], "area": -20}, "box without area"),
    ({"bbox": [40, 2, 5, 4]}, "box outside its image"),
    ({"bbox": [1, -9, 5, 4]}, "box outside its image"),
]


@pytest.mark.parametrize(("change", "reason"), LEFT_OUT)
def test_what_holds_no_object_is_not_held_against_a_detector(change: dict[str, Any], reason: str) -> None:
    """Unless the user asks for the file as pycocotools reads it. One line says so either way."""
    content = data(**change)
    content["annotations"].append(data(id=1)["annotations"][0])
    truth = ground_truth_from_dict(content)
    assert evaluate_coco(truth, perfect([1, 2, 5, 4]))["bbox/AP"] == pytest.approx(1)
    (note,) = truth.notes()
    assert f"scored with 1 of 2 annotations left out (1 {reason}); eval.count_skipped=true" in note
    literal = ground_truth_from_dict(content, count_skipped=True)
    assert evaluate_coco(literal, perfect([1, 2, 5, 4]))["bbox/AP"] == pytest.approx(51 / 101)  # recall 1/2
    assert "1 of 2 annotations are objects to find although training skips them" in literal.notes()[0]


def test_annotations_of_no_image_are_left_out_either_way() -> None:
    content = data(image_id=8)
    content["annotations"].append(data(id=1)["annotations"][0])
    for count_skipped in (False, True):
        truth = ground_truth_from_dict(content, count_skipped=count_skipped)
        assert truth.annotation_ids.tolist() == [1]
        (note,) = truth.notes()
        assert note.endswith("1 of 2 annotations left out (1 image_id of no image)")


def test_a_box_that_hangs_over_is_scored_as_trained_unless_asked_otherwise() -> None:
    content = data(bbox=[15, 2, 10, 4], area=40)
    truth = ground_truth_from_dict(content)
    assert truth.boxes.tolist() == [[15, 2, 5, 4]]
    assert "1 of 1 boxes clipped to their image" in truth.notes()[0]
    assert ground_truth_from_dict(content, count_skipped=True).boxes.tolist() == [[15, 2, 10, 4]]


def test_boxes_that_exceed_the_image_by_rounding_are_those_of_the_file() -> None:
    """COCO's boxes have two decimals."""
    truth = ground_truth_from_dict(data(bbox=[15.01, 2, 5.0, 4]))
    assert truth.boxes.tolist() == [[15.01, 2, 5.0, 4]]
    assert truth.notes() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"category_id": -1}, r"annotation id 0 \(image id 7\): field 'category_id' -1: not in .* categories \(3\)"),
        ({"bbox": [0, 0, 1e308, 1]}, r"annotation id 0 .*'bbox' .*1e\+308.*no pixel coordinates"),
        ({"bbox": [0, 0, "nan", 1]}, r"annotation id 0 .*'bbox' .*nan"),
        ({"bbox": [0, 0, 5]}, r"\(id 0, image_id 7\): field 'bbox'"),
        ({"area": 1e300}, r"annotation id 0 .*'area' 1e\+300"),
        ({"iscrowd": 2}, r"annotation id 0 .*'iscrowd' 2: must be 0 or 1"),
        ({"bbox": None}, r"'bbox' is null"),
        ({"bbox": ...}, r"`bbox`"),
        ({"image_id": 2**70}, r"'image_id' is 1180591620717411303424"),
        (
            {"segmentation": {"size": [20, 10], "counts": [200]}},
            r"annotation id 0 .*size \[20, 10\] is not .*\[10, 20\]",
        ),
    ],
)
@pytest.mark.parametrize("from_file", [False, True])
def test_what_cannot_be_meant_is_refused_by_name(
    change: dict[str, Any], message: str, tmp_path: Path, *, from_file: bool
) -> None:
    content = data(**change)
    path = tmp_path / "truth.json"
    _ = path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as caught:
        _ = read_ground_truth(path) if from_file else ground_truth_from_dict(content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [{"bbox": [NAN, 0, 1, 1]}, {"bbox": [0, 0, INFINITY, 1]}, {"area": NAN}])
def test_a_number_that_is_none_is_pointed_at(change: dict[str, Any]) -> None:
    """As Python's json module writes it."""
    with pytest.raises(UserError, match=r"ground truth: (NaN|Infinity) at byte \d+ \(line 1\)"):
        _ = ground_truth_from_dict(data(**change))


def test_what_is_not_json_is_refused() -> None:
    with pytest.raises(UserError, match="a value of type float32 is not JSON"):
        _ = ground_truth_from_dict(data(area=np.float32(2)))


@pytest.mark.parametrize("table", ["images", "categories", "annotations"])
def test_ids_are_unique(table: str) -> None:
    content = data()
    content[table] *= 2
    with pytest.raises(UserError, match=r"duplicate (image|category|annotation) ids: [073];"):
        _ = ground_truth_from_dict(content)


@pytest.mark.parametrize("table", ["images", "categories"])
def test_without_images_or_categories_nothing_can_be_scored(table: str) -> None:
    with pytest.raises(UserError, match=f"the list '{table}' is empty"):
        _ = ground_truth_from_dict({**data(), table: [], "annotations": []})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ('{"images": [', "not valid JSON"),
        ("[]", "a COCO file is an object with lists"),
        ('{"images": []}', "'annotations' is missing"),
        ('{"x": ' + "[" * 100_000, "nested"),
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
    with pytest.raises(UserError, match=r"absent\.json: No such file"):
        _ = read_ground_truth(tmp_path / "absent.json")
    with pytest.raises(UserError, match="directory"):
        _ = read_ground_truth(tmp_path)


@pytest.mark.parametrize(
    "segmentation",
    [None, [], "abc", [[2e8, 0, 5, 0, 5, 5]], [[1, 1, 5, 0, 5]], [[[1, 1], [5, 0], [5, 5]]], ["15"], [[1, 1, 5, 5]]],
)
def test_images_with_objects_without_a_usable_mask_are_left_out_of_the_figures_of_masks(segmentation: Any) -> None:
    """Two points would be taken for a box by pycocotools."""
    content = data(segmentation=segmentation)
    with pytest.raises(UserError, match="no annotation has a usable mask"):
        _ = evaluate_coco(ground_truth_from_dict(content), CocoResults(), iou_type="segm")
    content["images"].append({"id": 8, "height": 10, "width": 20})
    content["annotations"].append(data(id=1, image_id=8, segmentation=[[1, 2, 6, 2, 6, 6, 1, 6]])["annotations"][0])
    truth = ground_truth_from_dict(content)
    assert "1 of 2 annotations have no usable mask; images with such a one (1)" in truth.notes("segm")[0]
    assert truth.notes() == []
    results = CocoResults()
    results.add(8, np.array([[1.0, 2, 6, 6]]), np.array([0.5]), np.array([3]), [truth.masks.encoded(1, 10, 20)])
    assert evaluate_coco(truth, results, iou_type="segm")["segm/AP"] == pytest.approx(1)


def test_masks_need_the_size_of_their_image() -> None:
    content = data(segmentation=[[0, 0, 8, 0, 8, 8]])
    content["images"] = [{"id": 7}]
    truth = ground_truth_from_dict(content)
    assert not truth.masks.present().any()


@pytest.mark.parametrize(
    "size", [{"height": 0, "width": 20}, {"height": 10, "width": -1}, {"height": 2**20, "width": 2**20}]
)
def test_a_size_that_no_image_has_is_refused(size: dict[str, int]) -> None:
    with pytest.raises(UserError, match="image id 7: height"):
        _ = ground_truth_from_dict(data() | {"images": [{"id": 7, **size}]})
