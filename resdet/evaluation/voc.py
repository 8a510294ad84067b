"""Pascal VOC's average precision at IoU 0.5: by 11 points (VOC 2007) or by area (VOC 2010 and later).

Boxes have continuous coordinates: an xml box includes its last pixel, so it is [xmin - 1, ymin - 1, xmax - xmin + 1,
ymax - ymin + 1] here, and overlaps are those of the development kit (VOCdevkit, VOCevaldet.m).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int64

from resdet.coco.ground_truth import GroundTruth
from resdet.coco.results import CocoResults
from resdet.errors import UserError
from resdet.evaluation.backends import Problem
from resdet.evaluation.coco import coco_problem
from resdet.ops.array_boxes import paired_iou

RULES = ("voc07", "voc12")
MIN_IOU = 0.5
ALL = 2**31  # limit of detections per image


def evaluate_voc(
    ground_truth: GroundTruth,
    results: CocoResults,
    *,
    rule: str = "voc12",
    image_ids: Sequence[int] | None = None,
) -> dict[str, float | None]:
    """`voc/AP50`, the mean over classes, and `voc/AP50/<class>`, in [0, 1]; None where a class has no object to find.

    `rule` is voc07 (mean precision at recalls 0, .1, ... 1) or voc12 (area under the precision envelope). Objects
    marked difficult, and crowd regions, are ignored: they need not be found, and detections on them are not errors. A
    detection belongs to the object with the largest overlap; of the detections of one object only the best-scored is
    correct. Errors are those of `evaluate_coco`.
    """
    if rule not in RULES:
        raise UserError(f"VOC rule {rule!r} is not known; use voc07 or voc12")
    problem = coco_problem(ground_truth, results, iou_type="bbox", image_ids=image_ids, limits=(ALL,))
    average = eleven_point_ap if rule == "voc07" else area_ap
    best, iou = _best_overlaps(problem)
    ignored = problem.crowd | problem.difficult
    by_class: dict[str, float | None] = {}
    for k, name in enumerate(ground_truth.class_names, start=1):
        positives = int(np.sum((problem.truth.category == k) & ~ignored))
        ranked = np.flatnonzero(problem.detections.category == k)
        ranked = ranked[np.argsort(-problem.scores[ranked], kind="stable")]
        right, wrong = _verdicts(best[ranked], iou[ranked], ignored)
        by_class[f"voc/AP50/{name}"] = average(np.cumsum(right), np.cumsum(wrong), positives) if positives else None
    defined = [value for value in by_class.values() if value is not None]
    return {"voc/AP50": float(np.mean(defined)) if defined else None, **by_class}


def eleven_point_ap(right: Int64[np.ndarray, " n"], wrong: Int64[np.ndarray, " n"], positives: int) -> float:
    """The mean over recalls 0, .1, ... 1 of the best precision at that recall or a higher one.

    `right` and `wrong` are cumulative counts of detections, best first; `positives` is the number of objects.
    """
    precision = right / np.maximum(right + wrong, 1)
    # In whole numbers, so that a recall of 3/10 is counted as .3.
    return float(np.mean([precision[10 * right >= tenth * positives].max(initial=0.0) for tenth in range(11)]))


def area_ap(right: Int64[np.ndarray, " n"], wrong: Int64[np.ndarray, " n"], positives: int) -> float:
    """The area under precision made falling (VOC 2010), arguments as for `eleven_point_ap`."""
    precision = right / np.maximum(right + wrong, 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(right, prepend=0) * envelope) / positives)


def _verdicts(
    best: Int64[np.ndarray, " n"], iou: Float64[np.ndarray, " n"], ignored: Bool[np.ndarray, " g"]
) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Which of a class's detections, best first, are correct and which are wrong; detections of ignored objects are
    neither.
    """
    matched = iou >= MIN_IOU
    right = np.zeros(len(best), dtype=bool)
    _, first = np.unique(best[matched], return_index=True)
    right[np.flatnonzero(matched)[first]] = True
    neither = np.zeros(len(best), dtype=bool)
    neither[matched] = ignored[best[matched]]
    return right & ~neither, ~right & ~neither


def _best_overlaps(problem: Problem) -> tuple[Int64[np.ndarray, " d"], Float64[np.ndarray, " d"]]:
    """For each detection, the object of its image and class with the largest overlap, and their IoU (0 if there is
    none).
    """
    detection, candidate, pair_iou = overlaps(problem)
    falling = np.lexsort((candidate, -pair_iou, detection))
    detections, top = np.unique(detection[falling], return_index=True)
    count = len(problem.detections)
    best, iou = np.zeros(count, dtype=np.int64), np.zeros(count)
    best[detections], iou[detections] = candidate[falling][top], pair_iou[falling][top]
    return best, iou


def overlaps(
    problem: Problem,
) -> tuple[Int64[np.ndarray, " pairs"], Int64[np.ndarray, " pairs"], Float64[np.ndarray, " pairs"]]:
    """All pairs of a detection and an object of one image and class, in the order of the detections, and their IoU."""
    found, truth = problem.detections, problem.truth
    truth_group = truth.image * (problem.num_categories + 1) + truth.category
    found_group = found.image * (problem.num_categories + 1) + found.category
    order = np.argsort(truth_group, kind="stable")
    first = np.searchsorted(truth_group[order], found_group, side="left")
    count = np.searchsorted(truth_group[order], found_group, side="right") - first
    detection = np.repeat(np.arange(len(found)), count)
    place = np.arange(len(detection)) - np.repeat(np.cumsum(count) - count, count)
    candidate = order[np.repeat(first, count) + place]
    return detection, candidate, paired_iou(found.boxes[detection], truth.boxes[candidate])
