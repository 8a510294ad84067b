"""The matching is COCO's: figures from it are those of pycocotools, on generated sets with crowds, ties and doubles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as pycocotools_mask

from resdet.evaluation.analysis.curves import coco_curves
from resdet.evaluation.analysis.matches import NONE, Pairs, greedy, match, overlapping_pairs
from resdet.evaluation.coco import CocoResults, GroundTruth, coco_problem, evaluate_coco, ground_truth_from_dict

coco_mask: Any = pycocotools_mask
SIDE = 130
CLASSES = (3, 7, 90)


def generated_set(seed: int) -> tuple[GroundTruth, CocoResults]:
    """Five images; boxes on whole pixels, so that overlaps are equal now and then; a mask is its box's upper half."""
    random = np.random.default_rng(seed)
    annotations, rows = [], []

    def half(box: np.ndarray) -> dict[str, Any]:
        x, y, w, h = np.round(box).astype(int).tolist()
        mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
        mask[max(y, 0) : y + max(h // 2, 1), max(x, 0) : x + max(w, 1)] = 1
        return coco_mask.encode(np.asfortranarray(mask))

    for image in range(1, 6):
        boxes = np.round(random.uniform([0, 0, 4, 4], [60, 60, 64, 64], size=(random.integers(0, 7), 4)))
        for box in boxes:
            kind = {"category_id": int(random.choice(CLASSES)), "iscrowd": int(random.random() < 0.2)}
            place = {"image_id": image, "bbox": box.tolist(), "area": float(box[2] * box[3]), "segmentation": half(box)}
            annotations.append({"id": len(annotations), **kind, **place})
        for _ in range(random.integers(0, 16)):
            box = boxes[random.integers(len(boxes))] if len(boxes) else np.array([5.0, 5, 20, 20])
            box = box + random.integers(-4, 5, size=4) * (random.random() < 0.8)
            box[2:] = np.abs(box[2:])
            rows.append((image, int(random.choice(CLASSES)), float(np.round(random.random(), 1)), box, half(box)))
    results = CocoResults()
    if rows:
        images, labels, scores, boxes, masks = zip(*rows, strict=True)
        results.add_columns(np.array(images), np.array(labels), np.array(scores), np.array(boxes), list(masks))
    data = {
        "images": [{"id": i, "height": SIDE, "width": SIDE} for i in range(1, 6)],
        "annotations": annotations,
        "categories": [{"id": i, "name": str(i)} for i in CLASSES],
    }
    return ground_truth_from_dict(data), results


@pytest.mark.parametrize(("iou_type", "limit"), [("bbox", 100), ("bbox", 2), ("segm", 100)])
def test_the_figures_of_the_matches_are_those_of_pycocotools(iou_type: str, limit: int) -> None:
    for seed in range(8):
        ground_truth, results = generated_set(seed)
        problem = coco_problem(ground_truth, results, iou_type=iou_type, image_ids=None, limits=(limit,))
        matches = match(problem, overlapping_pairs(problem, least=0.1))
        curves = coco_curves(problem, matches)
        theirs = evaluate_coco(ground_truth, results, iou_type=iou_type, backend="pycocotools", max_detections=(limit,))
        for size, letter in enumerate(("", "s", "m", "l")):
            ap, recall = curves.precision[:, size], curves.recall[:, size]
            for name, ours in ((f"AP{letter}", ap), (f"AR{letter or limit}", recall)):
                expected = theirs[f"{iou_type}/{name}"]
                assert np.isnan(ours).all() == (expected is None)
                assert expected is None or np.nanmean(ours) == pytest.approx(expected, abs=1e-12)
        for k, name in enumerate(ground_truth.class_names):
            expected = theirs[f"{iou_type}/AP/{name}"]
            assert expected is None or curves.precision[:, 0, k].mean() == pytest.approx(expected, abs=1e-12)


def test_pairs_are_those_of_one_image_in_any_number_of_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    ground_truth, results = generated_set(1)
    problem = coco_problem(ground_truth, results, iou_type="bbox", image_ids=None, limits=(100,))
    whole = overlapping_pairs(problem, least=0.1)
    monkeypatch.setattr("resdet.evaluation.analysis.matches.PAIRS_AT_ONCE", 7)
    portions = overlapping_pairs(problem, least=0.1)
    assert len(whole.iou) > 20
    for a, b in ((whole.detection, portions.detection), (whole.truth, portions.truth), (whole.iou, portions.iou)):
        np.testing.assert_array_equal(a, b)
    assert (problem.detections.image[whole.detection] == problem.truth.image[whole.truth]).all()


def test_the_first_in_line_takes_the_best_and_the_next_what_is_left() -> None:
    """Two detections, two objects, everything overlaps; at 0.7 the second finds its remaining object too far."""
    matched = greedy(
        pairs_of([(0, 0, 0.6), (0, 1, 0.9), (1, 0, 0.65), (1, 1, 0.95)]),
        group=np.zeros(2, dtype=np.int64),
        priority=np.array([0, 1]),
        thresholds=np.array([0.5, 0.7]),
        ignored=np.zeros((2, 1), dtype=bool),
        shared=np.zeros(2, dtype=bool),
    )
    assert matched[:, :, 0].tolist() == [[1, 1], [0, NONE]]


def test_what_is_to_be_ignored_is_taken_last_and_crowds_are_taken_again() -> None:
    matched = greedy(
        pairs_of([(0, 0, 0.6), (0, 1, 0.9), (1, 0, 0.6), (1, 1, 0.9), (2, 1, 0.9)]),
        group=np.zeros(3, dtype=np.int64),
        priority=np.arange(3),
        thresholds=np.array([0.5]),
        ignored=np.array([[False], [True]]),
        shared=np.array([False, True]),
    )
    assert matched[:, 0, 0].tolist() == [0, 1, 1]


def pairs_of(rows: list[tuple[int, int, float]]) -> Pairs:
    detection, truth, iou = zip(*rows, strict=True)
    return Pairs(np.array(detection), np.array(truth), np.array(iou))
