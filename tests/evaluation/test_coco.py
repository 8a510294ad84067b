"""COCO's figures: what they are on cases a pencil can do, and on the published reference."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resdet.errors import UserError
from resdet.evaluation.coco import (
    CocoResults,
    GroundTruth,
    evaluate_coco,
    ground_truth_from_dict,
    read_ground_truth,
    read_results,
)

REFERENCE = Path(__file__).parents[2].parent / "shared" / "data" / "eval-reference"
ORDER = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
PUBLISHED = {
    "bbox": [
        0.5045806987249628, 0.6969727247299577, 0.5729816669904824,
        0.5856257209410443, 0.5193996948036719, 0.5013978986347466,
        0.38681277964578054, 0.5936795762842003, 0.595352982877607,
        0.6398109626113442, 0.5664205978994309, 0.5642905982905982,
    ],
    "segm": [
        0.3195452758576433, 0.5622883972521636, 0.29892653412086784,
        0.3873740315997837, 0.31018272403369485, 0.3269339071005138,
        0.2682297225711534, 0.41544868114906375, 0.4168394992198818,
        0.4694498622754236, 0.37675922666197265, 0.3814715099715099,
    ],
}  # fmt: skip


@pytest.fixture(params=["pycocotools", "hotcoco"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "hotcoco":
        _ = pytest.importorskip("hotcoco")
    return request.param


def truth(annotations: list[dict[str, Any]], *, images: int = 2) -> GroundTruth:
    """Images 11, 12, ... of 100 x 100 pixels, classes cat (id 5) and dog (id 9)."""
    return ground_truth_from_dict(
        {
            "images": [{"id": 11 + i, "height": 100, "width": 100} for i in range(images)],
            "categories": [{"id": 9, "name": "dog"}, {"id": 5, "name": "cat"}],
            "annotations": [{"id": i, **annotation} for i, annotation in enumerate(annotations)],
        }
    )


def cat(image_id: int, box: list[float], **fields: Any) -> dict[str, Any]:
    area = {"area": box[2] * box[3]}
    return {"image_id": image_id, "category_id": 5, "bbox": box, "iscrowd": 0} | area | fields


def found(*entries: tuple[int, int, Sequence[float], float]) -> CocoResults:
    """Entries of (image id, category id, xywh box, score)."""
    results = CocoResults()
    for image_id, category_id, (x, y, w, h), score in entries:
        results.add(
            image_id, np.array([[x, y, x + w, y + h]], dtype=np.float64), np.array([score]), np.array([category_id])
        )
    return results


@pytest.mark.realdata
@pytest.mark.skipif(not REFERENCE.exists(), reason="needs ../shared/data/eval-reference")
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_the_published_reference_is_reproduced(iou_type: str, backend: str) -> None:
    ground_truth = read_ground_truth(REFERENCE / "instances_val2014_100.json")
    results = read_results(REFERENCE / f"instances_val2014_fake{iou_type}100_results.json", ground_truth)
    figures = evaluate_coco(ground_truth, results, iou_type=iou_type, backend=backend)
    for name, value in zip(ORDER, PUBLISHED[iou_type], strict=True):
        assert figures[f"{iou_type}/{name}"] == pytest.approx(value, abs=1e-9)


def test_perfect_detections_score_one(backend: str) -> None:
    """Whatever the ids: annotation id 0, category ids with gaps and out of order."""
    ground_truth = truth([cat(11, [10, 10, 20, 20]), cat(12, [0, 0, 50, 50], category_id=9)])
    figures = evaluate_coco(
        ground_truth, found((11, 5, [10, 10, 20, 20], 0.9), (12, 9, [0, 0, 50, 50], 0.2)), backend=backend
    )
    for name in ("AP", "AR100", "AP/cat", "AP/dog", "APs", "APm"):  # 20 x 20 is small, 50 x 50 medium
        assert figures[f"bbox/{name}"] == pytest.approx(1)
    assert figures["bbox/APl"] is None


def test_average_precision_by_pencil(backend: str) -> None:
    """Right, wrong, right of two objects: precision 1 up to recall 1/2 (51 of 101 points), 2/3 beyond."""
    ground_truth = truth([cat(11, [0, 0, 40, 40]), cat(12, [0, 0, 40, 40])])
    results = found((11, 5, [0, 0, 40, 40], 0.9), (11, 5, [60, 60, 40, 40], 0.8), (12, 5, [0, 0, 40, 40], 0.7))
    figures = evaluate_coco(ground_truth, results, backend=backend)
    assert figures["bbox/AP"] == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
    assert figures["bbox/AR1"] == 1


def test_an_overlap_counts_at_the_thresholds_it_reaches(backend: str) -> None:
    """30 of 40 pixels' width: IoU 0.75 is found at six of ten thresholds."""
    figures = evaluate_coco(truth([cat(11, [0, 0, 40, 40])]), found((11, 5, [0, 0, 30, 40], 0.9)), backend=backend)
    assert figures["bbox/AP"] == pytest.approx(0.6)
    assert figures["bbox/AP50"] == pytest.approx(1)
    assert figures["bbox/AP75"] == pytest.approx(1)


def test_no_results_score_zero(backend: str) -> None:
    figures = evaluate_coco(truth([cat(11, [0, 0, 20, 20])]), CocoResults(), backend=backend)
    assert figures["bbox/AP"] == figures["bbox/APs"] == figures["bbox/AR100"] == figures["bbox/AP/cat"] == 0
    assert figures["bbox/APl"] is figures["bbox/AP/dog"] is None


@pytest.mark.parametrize("annotations", [[], [cat(11, [0, 0, 20, 20], iscrowd=1)]])
def test_without_objects_to_find_every_figure_is_undefined(annotations: list[dict[str, Any]], backend: str) -> None:
    for results in (CocoResults(), found((11, 5, [0, 0, 20, 20], 0.9))):
        figures = evaluate_coco(truth(annotations), results, backend=backend)
        assert set(figures.values()) == {None}


def test_a_detection_in_a_crowd_is_not_held_against_the_detector(backend: str) -> None:
    ground_truth = truth([cat(11, [0, 0, 20, 20]), cat(11, [40, 40, 60, 60], iscrowd=1)])
    results = found((11, 5, [50, 50, 10, 10], 0.9), (11, 5, [70, 70, 10, 10], 0.8), (11, 5, [0, 0, 20, 20], 0.7))
    assert evaluate_coco(ground_truth, results, backend=backend)["bbox/AP"] == pytest.approx(1)


def test_only_the_best_scored_detections_count(backend: str) -> None:
    """Two objects; with one detection an image and class the second, though right, is cut off."""
    ground_truth = truth([cat(11, [0, 0, 20, 20]), cat(11, [50, 50, 20, 20])])
    results = found((11, 5, [50, 50, 20, 20], 0.3), (11, 5, [0, 0, 20, 20], 0.9))
    figures = evaluate_coco(ground_truth, results, backend=backend, max_detections=(1, 2))
    assert (figures["bbox/AR1"], figures["bbox/AR2"], figures["bbox/AP"]) == (0.5, 1, pytest.approx(1))
    figures = evaluate_coco(ground_truth, results, backend=backend, max_detections=(1,))
    assert figures["bbox/AP"] == pytest.approx(51 / 101)  # precision 1 up to recall 1/2


def test_every_row_is_right_with_300_detections(backend: str) -> None:
    """150 wrong ones before the right one: 100 miss it, 300 find it. pycocotools' summary says -1 here."""
    wrong = [(11, 5, [float(i % 10), 80, 5, 5], 0.9) for i in range(150)]
    results = found(*wrong, (11, 5, [0, 0, 20, 20], 0.1))
    figures = evaluate_coco(
        truth([cat(11, [0, 0, 20, 20])]), results, backend=backend, max_detections=(1, 10, 100, 300)
    )
    assert (figures["bbox/AR100"], figures["bbox/AR300"], figures["bbox/ARs"]) == (0, 1, 1)
    assert figures["bbox/AP"] == figures["bbox/APs"] == pytest.approx(1 / 151)


def test_equal_scores_give_the_same_figures_in_any_order(backend: str) -> None:
    ground_truth = truth([cat(11, [0, 0, 40, 40]), cat(11, [50, 50, 30, 30]), cat(12, [0, 0, 20, 20])])
    random = np.random.default_rng(0)
    entries = [(11 + int(random.integers(2)), 5, [*random.integers(0, 50, 2), *random.integers(9, 40, 2)], 0.5)]
    entries = [(i, c, list(map(float, box)), s) for i, c, box, s in entries]
    entries += [(11, 5, [0, 0, 40, 40], 0.5), (11, 5, [3, 0, 40, 40], 0.5), (11, 5, [50, 50, 30, 31], 0.5)]
    entries += [(12, 5, [0, 0, 20, 20], 0.5), (12, 5, [60, 0, 20, 20], 0.5), (11, 5, [0, 60, 20, 20], 0.5)]
    first = evaluate_coco(ground_truth, found(*entries), backend=backend)
    assert first["bbox/AP"] not in (0, 1)
    for _ in range(20):
        shuffled = [entries[i] for i in random.permutation(len(entries))]
        assert evaluate_coco(ground_truth, found(*shuffled), backend=backend) == first


def test_a_part_of_the_images_scores_as_a_data_set_of_its_own(backend: str) -> None:
    annotations = [cat(11, [0, 0, 40, 40]), cat(12, [50, 50, 30, 30]), cat(13, [9, 9, 9, 9])]
    entries = [(11, 5, [0, 0, 40, 38], 0.5), (12, 5, [0, 0, 9, 9], 0.9), (13, 5, [9, 9, 9, 8], 0.7)]
    whole, results = truth(annotations, images=3), found(*entries)
    part = evaluate_coco(whole, results, backend=backend, image_ids=[13, 11])
    alone = ground_truth_from_dict(
        {
            "images": [{"id": 13}, {"id": 11}],
            "categories": [{"id": 5, "name": "cat"}, {"id": 9, "name": "dog"}],
            "annotations": [{"id": 1, **annotations[0]}, {"id": 2, **annotations[2]}],
        }
    )
    assert part == evaluate_coco(alone, found(entries[0], entries[2]), backend=backend)


def test_an_image_to_score_must_be_known() -> None:
    with pytest.raises(UserError, match="has no image 99"):
        _ = evaluate_coco(truth([]), CocoResults(), image_ids=[11, 99])


def test_masks_are_sized_by_their_own_area(backend: str) -> None:
    """A detection's box is large, its mask small: unmatched, it is out of range for large objects."""
    box_mask = {"size": [100, 100], "counts": [0, 10000]}  # the whole image
    dot = {"size": [100, 100], "counts": [50, 1, 9949]}
    ground_truth = truth([cat(11, [0, 0, 100, 100], segmentation=box_mask)])
    results = CocoResults()
    corners = np.array([[0, 0, 100, 100.0]] * 2)
    results.add(11, corners, np.array([0.9, 0.5]), np.array([5, 5]), [dot, box_mask])
    figures = evaluate_coco(ground_truth, results, iou_type="segm", backend=backend)
    assert figures["segm/APl"] == pytest.approx(1)
    assert figures["segm/AP"] == pytest.approx(0.5)  # over all sizes the dot is a false positive


def test_results_written_and_read_back_score_the_same(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    ground_truth = truth([cat(11, [0, 0, 40, 40]), cat(12, [50, 50, 30, 30])])
    results = CocoResults()
    for image_id in (11, 12):
        corners = random.uniform(0, 50, size=(5, 2)).astype(np.float32)
        boxes = np.concatenate([corners, corners + random.uniform(20, 50, size=(5, 2)).astype(np.float32)], axis=1)
        results.add(image_id, boxes, random.random(5).astype(np.float32), np.full(5, 5))
    path = tmp_path / "predictions.json"
    _ = path.write_text(json.dumps(results.to_json()))
    again = read_results(path, ground_truth)
    assert again.to_json() == results.to_json()
    assert evaluate_coco(ground_truth, again) == evaluate_coco(ground_truth, results)


def test_results_of_several_processes_join_to_those_of_one(backend: str) -> None:
    ground_truth = truth([cat(11, [0, 0, 40, 40]), cat(12, [50, 50, 30, 30])])
    entries = [(11, 5, [0, 0, 40, 38], 0.5), (12, 5, [0, 0, 9, 9], 0.9), (12, 5, [50, 50, 30, 29], 0.7)]
    joined = CocoResults()
    joined.extend([found(*entries[1:]), CocoResults(), found(entries[0])])
    one = evaluate_coco(ground_truth, found(*entries), backend=backend)
    assert evaluate_coco(ground_truth, joined, backend=backend) == one
