"""Pascal VOC's AP50 by pencil, and against a plain implementation of the development kit's loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from resdet.errors import UserError
from resdet.evaluation.coco import CocoResults, GroundTruth, ground_truth_from_dict
from resdet.evaluation.voc import area_ap, eleven_point_ap, evaluate_voc

Box = tuple[float, float, float, float]
CLASSES = (1, 2)


def truth(objects: list[tuple[int, int, Box, bool]], *, images: int = 3) -> GroundTruth:
    """Objects of (image id, category id, xywh box, difficult)."""
    return ground_truth_from_dict(
        {
            "images": [{"id": i} for i in range(1, images + 1)],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
            "annotations": [
                {"id": i, "image_id": image, "category_id": label, "bbox": list(box), "difficult": int(difficult)}
                for i, (image, label, box, difficult) in enumerate(objects)
            ],
        }
    )


def found(*entries: tuple[int, int, Box, float]) -> CocoResults:
    results = CocoResults()
    for image_id, label, (x, y, w, h), score in entries:
        results.add(image_id, np.array([[x, y, x + w, y + h]], float), np.array([score]), np.array([label]))
    return results


HERE, THERE = (0, 0, 10, 10), (50, 50, 10, 10)


@pytest.mark.parametrize("rule", ["voc07", "voc12"])
def test_perfect_detections_score_one(rule: str) -> None:
    ground_truth = truth([(1, 1, HERE, False), (2, 1, THERE, False)])
    figures = evaluate_voc(ground_truth, found((1, 1, HERE, 0.9), (2, 1, THERE, 0.8)), rule=rule)
    assert figures == {"voc/AP50": 1, "voc/AP50/cat": 1, "voc/AP50/dog": None}


def test_right_wrong_right_by_pencil() -> None:
    """Precision 1 up to recall 1/2, then 2/3: eleven points 6 x 1 and 5 x 2/3; area (1 + 2/3) / 2."""
    ground_truth = truth([(1, 1, HERE, False), (2, 1, HERE, False)])
    results = found((1, 1, HERE, 0.9), (1, 1, THERE, 0.8), (2, 1, HERE, 0.7))
    assert evaluate_voc(ground_truth, results, rule="voc07")["voc/AP50"] == pytest.approx((6 + 5 * 2 / 3) / 11)
    assert evaluate_voc(ground_truth, results, rule="voc12")["voc/AP50"] == pytest.approx(5 / 6)


def test_a_recall_of_three_tenths_reaches_the_point_there() -> None:
    """3 of 10 found without a mistake: points 0, .1, .2, .3 of eleven, although 0.1 * 3 > 0.3 in floats."""
    right, wrong = np.arange(1, 4), np.zeros(3, dtype=np.int64)
    assert eleven_point_ap(right, wrong, 10) == pytest.approx(4 / 11)
    assert area_ap(right, wrong, 10) == pytest.approx(0.3)


def test_difficult_objects_count_neither_way() -> None:
    """A detection on one is no mistake, twice neither, and missing one costs nothing."""
    ground_truth = truth([(1, 1, HERE, False), (1, 1, THERE, True), (2, 1, THERE, True)])
    results = found((1, 1, THERE, 0.9), (1, 1, THERE, 0.8), (1, 1, HERE, 0.7))
    assert evaluate_voc(ground_truth, results)["voc/AP50"] == 1


def test_the_second_detection_of_an_object_is_wrong() -> None:
    ground_truth = truth([(1, 1, HERE, False), (2, 1, HERE, False)])
    results = found((1, 1, HERE, 0.9), (1, 1, HERE, 0.8), (2, 1, HERE, 0.7))
    assert evaluate_voc(ground_truth, results)["voc/AP50"] == pytest.approx(5 / 6)


@pytest.mark.parametrize(("width", "ap"), [(5.0, 1), (4.9, 0)])
def test_half_an_overlap_is_enough(width: float, ap: float) -> None:
    figures = evaluate_voc(truth([(1, 1, HERE, False)]), found((1, 1, (0, 0, width, 10), 0.9)))
    assert figures["voc/AP50"] == ap


def test_no_results_score_zero_and_no_objects_none() -> None:
    assert evaluate_voc(truth([(1, 1, HERE, False)]), CocoResults())["voc/AP50"] == 0
    assert evaluate_voc(truth([]), found((1, 1, HERE, 0.9)))["voc/AP50"] is None


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(UserError, match="use voc07 or voc12"):
        _ = evaluate_voc(truth([]), CocoResults(), rule="voc10")


def iou(a: Box, b: Box) -> float:
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    overlap = max(w, 0) * max(h, 0)
    return overlap / (a[2] * a[3] + b[2] * b[3] - overlap)


def plain_class_ap(objects: list[Any], entries: list[Any], label: int, rule: str) -> float | None:
    """VOCevaldet.m, line by line: take detections by score, give each to the object it overlaps most."""
    own = [o for o in objects if o[1] == label]
    positives = sum(not o[3] for o in own)
    taken: set[int] = set()
    points, right, wrong = [(0.0, 1.0)], 0, 0
    for image, _, box, _ in sorted((e for e in entries if e[1] == label), key=lambda e: -e[3]):
        overlaps = [iou(box, o[2]) if o[0] == image else -1 for o in own]
        best = int(np.argmax(overlaps)) if overlaps else -1
        if best >= 0 and overlaps[best] >= 0.5:
            if own[best][3]:
                continue
            right, wrong = (right, wrong + 1) if best in taken else (right + 1, wrong)
            taken.add(best)
        else:
            wrong += 1
        points.append((right / max(positives, 1), right / (right + wrong)))
    if positives == 0:
        return None
    if rule == "voc07":
        return sum(max([p for r, p in points[1:] if r >= t / 10 - 1e-9], default=0) for t in range(11)) / 11
    area = 0.0
    for i in range(1, len(points)):
        area += (points[i][0] - points[i - 1][0]) * max(p for _, p in points[i:])
    return area


@pytest.mark.parametrize("rule", ["voc07", "voc12"])
@pytest.mark.parametrize("seed", range(15))
def test_random_sets_score_as_in_the_development_kit(seed: int, rule: str) -> None:
    random = np.random.default_rng(seed)

    def box() -> Box:
        x, y, w, h = random.uniform(0, 60, 2).tolist() + random.uniform(5, 40, 2).tolist()
        return x, y, w, h

    objects = [
        (int(random.integers(1, 4)), int(random.choice(CLASSES)), box(), bool(random.random() < 0.25))
        for _ in range(12)
    ]
    entries = []
    for score in random.permutation(40) / 40:
        image, label, (x, y, w, h), _ = objects[random.integers(len(objects))]
        near = (x + random.normal(0, 2), y, w, h + abs(random.normal(0, 3)))
        entries.append((image, label, near if random.random() < 0.7 else box(), float(score)))
    figures = evaluate_voc(truth(objects), found(*entries), rule=rule)
    for label, name in zip(CLASSES, ("cat", "dog"), strict=True):
        assert figures[f"voc/AP50/{name}"] == pytest.approx(plain_class_ap(objects, entries, label, rule))
