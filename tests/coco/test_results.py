"""Results files: everything that would poison the figures is refused by index, image and value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resdet.errors import UserError
from resdet.evaluation.coco import CocoResults, GroundTruth, evaluate_coco, ground_truth_from_dict, read_results

NAN = float("nan")
TRUTH: dict[str, Any] = {
    "images": [{"id": 7, "height": 10, "width": 20}, {"id": 8, "height": 10, "width": 20}],
    "categories": [{"id": 3, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [0, 0, 5, 5], "area": 25, "iscrowd": 0}
        | {"segmentation": [[0, 0, 5, 0, 5, 5, 0, 5]]}
    ],
}
GOOD: dict[str, Any] = {"image_id": 7, "category_id": 3, "bbox": [0, 0, 5, 5], "score": 0.5}


@pytest.fixture
def truth() -> GroundTruth:
    return ground_truth_from_dict(TRUTH, source="truth.json")


def written(folder: Path, content: Any) -> Path:
    path = folder / "results.json"
    _ = path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": NAN}, r"result 1 \(image_id 8\): score is nan; expected a finite number"),
        ({"score": float("inf")}, r"result 1 \(image_id 8\): score is inf"),
        ({"bbox": [0, NAN, 5, 5]}, r"result 1 \(image_id 8\): bbox is \[0.0, nan, 5.0, 5.0\]"),
        ({"bbox": [0, 0, -5, 5]}, r"result 1 \(image_id 8\): bbox is .*-5.0.*no negative size"),
        ({"bbox": [0, 0, 5]}, r"result 1 \(image_id 8\): bbox"),
        ({"bbox": None}, r"result 1 \(image_id 8\): no bbox, which other results of the file have"),
        ({"category_id": 4}, r"result 1 \(image_id 8\): category_id is 4; expected one of its category ids, 3"),
        ({"image_id": 99}, r"result 1 \(image_id 99\): image_id is 99; expected an image id of truth.json"),
        ({"image_id": 7.5}, r"at \[1\].image_id: "),
        ({"score": "high"}, r"at \[1\].score: "),
        ({"score": ...}, r"at \[1\].*score"),
    ],
)
def test_a_poisoned_result_is_refused_by_name(
    change: dict[str, Any], message: str, truth: GroundTruth, tmp_path: Path
) -> None:
    bad = {name: value for name, value in (GOOD | {"image_id": 8} | change).items() if value is not ...}
    with pytest.raises(UserError, match=message) as caught:
        _ = read_results(written(tmp_path, [GOOD, bad]), truth)
    assert "results.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_collected_detections_are_checked_as_well(truth: GroundTruth) -> None:
    """A diverged model's NaN would count as a perfect match."""
    for score, box in ((NAN, [0, 0, 5, 5]), (0.5, [0, 0, NAN, 5])):
        results = CocoResults()
        results.add(7, np.array([box], dtype=np.float32), np.array([score], dtype=np.float32), np.array([3]))
        with pytest.raises(UserError, match=r"predictions: result 0 \(image_id 7\): .*nan"):
            _ = evaluate_coco(truth, results)


def test_the_number_of_further_bad_entries_is_given(truth: GroundTruth, tmp_path: Path) -> None:
    bad = [GOOD | {"score": NAN}] * 3
    with pytest.raises(UserError, match=r"result 1 .*\(3 such entries\)"):
        _ = read_results(written(tmp_path, [GOOD, *bad]), truth)


def test_results_for_another_data_set_are_recognized(truth: GroundTruth, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no image id in common with truth.json .*its own data set"):
        _ = read_results(written(tmp_path, [GOOD | {"image_id": i} for i in (1, 2)]), truth)


def test_an_empty_results_file_scores_zero(truth: GroundTruth, tmp_path: Path) -> None:
    results = read_results(written(tmp_path, []), truth)
    for iou_type in ("bbox", "segm"):
        assert evaluate_coco(truth, results, iou_type=iou_type)[f"{iou_type}/AP"] == 0


@pytest.mark.parametrize("content", ["{}", '{"annotations": []}', "null", "[1]", "", "[{]"])
def test_a_file_of_another_kind_is_refused_in_one_line(content: str, truth: GroundTruth, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a COCO results file") as caught:
        _ = read_results(written(tmp_path, content), truth)
    assert "\n" not in str(caught.value)


def test_boxes_and_masks_are_scored_only_where_they_are(truth: GroundTruth, tmp_path: Path) -> None:
    boxes = read_results(written(tmp_path, [GOOD]), truth)
    with pytest.raises(UserError, match="no segmentation; score their boxes with --iou-type bbox"):
        _ = evaluate_coco(truth, boxes, iou_type="segm")
    mask = {"size": [10, 20], "counts": [0, 200]}
    entry = {"image_id": 7, "category_id": 3, "score": 0.5, "segmentation": mask}
    masks = read_results(written(tmp_path, [entry]), truth)
    with pytest.raises(UserError, match="no bbox; score their masks with --iou-type segm"):
        _ = evaluate_coco(truth, masks)
    assert evaluate_coco(truth, masks, iou_type="segm")["segm/AP"] == 0  # a quarter of the overlap is too little


def test_masks_from_pycocotools_can_be_written() -> None:
    results = CocoResults()
    mask = {"size": [10, 20], "counts": b"0X6"}
    results.add(7, np.zeros((1, 4)), np.array([0.5]), np.array([3]), [mask])
    assert json.loads(json.dumps(results.to_json()))[0]["segmentation"] == {"size": [10, 20], "counts": "0X6"}


def test_corners_become_width_and_height() -> None:
    results = CocoResults()
    results.add(7, np.array([[1.0, 2.0, 5.0, 9.0]]), np.array([0.5]), np.array([3]))
    assert results.to_json() == [{"image_id": 7, "category_id": 3, "score": 0.5, "bbox": [1, 2, 4, 7]}]


def test_joined_results_keep_what_each_could_not_read() -> None:
    one, two, both = CocoResults("one"), CocoResults("two"), CocoResults("both")
    one.unreadable, two.unreadable = {3: "no JPEG"}, {5: "is empty"}
    both.extend([one, two])
    assert both.unreadable == {3: "no JPEG", 5: "is empty"}
