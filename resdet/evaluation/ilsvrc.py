"""The figures of ILSVRC: average precision over 200 classes (detection), and the top-5 localization error.

Boxes have continuous coordinates, so a width is that of the development kit with its + 1 (xmax - xmin + 1).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int64

from resdet.coco.ground_truth import GroundTruth
from resdet.coco.results import CocoResults
from resdet.evaluation.backends import Problem
from resdet.evaluation.coco import coco_problem
from resdet.evaluation.voc import ALL, area_ap, overlaps

MIN_IOU = 0.5
TOLERANCE = 10  # pixels: the devkit's, 5 on each side of a small object
GUESSES = 5  # classes of an image


def evaluate_ilsvrc_det(
    ground_truth: GroundTruth, results: CocoResults, *, image_ids: Sequence[int] | None = None
) -> dict[str, float | None]:
    """`ilsvrc/AP`, the mean over classes, and `ilsvrc/AP/<class>`, in [0, 1]; None where a class has no object.

    As eval_detection.m of the development kit: of the detections of a class, best first, each takes the object of its
    image that overlaps it most among those that are not taken yet and that it overlaps by their threshold
    (`thresholds`); one that takes none is false. The precision is made falling, and AP is the area under it. Crowd
    regions, which ILSVRC does not have, are no objects. Errors are those of `evaluate_coco`.
    """
    problem = coco_problem(ground_truth, results, iou_type="bbox", image_ids=image_ids, limits=(ALL,))
    right = _matched(problem)
    by_class: dict[str, float | None] = {}
    for k, name in enumerate(ground_truth.class_names, start=1):
        positives = int(np.sum((problem.truth.category == k) & ~problem.crowd))
        ranked = np.flatnonzero(problem.detections.category == k)
        ranked = ranked[np.argsort(-problem.scores[ranked], kind="stable")]
        found = right[ranked]
        ap = area_ap(np.cumsum(found), np.cumsum(~found), positives) if positives else None
        by_class[f"ilsvrc/AP/{name}"] = ap
    defined = [value for value in by_class.values() if value is not None]
    return {"ilsvrc/AP": float(np.mean(defined)) if defined else None, **by_class}


def thresholds(boxes: Float64[np.ndarray, "g 4"]) -> Float64[np.ndarray, " g"]:
    """The overlap that finds each object, of xywh boxes: min(0.5, wh / ((w + 10)(h + 10))).

    A box that is 5 pixels off on each side still finds a small object.
    """
    width, height = boxes[:, 2], boxes[:, 3]
    return np.minimum(MIN_IOU, width * height / ((width + TOLERANCE) * (height + TOLERANCE)))


def evaluate_ilsvrc_loc(
    ground_truth: GroundTruth, results: CocoResults, *, image_ids: Sequence[int] | None = None
) -> dict[str, float | None]:
    """Localization errors over the images that have an object, in [0, 1]; None if there are none.

    The guesses of an image are its best detection of each class, best first. `loc/top5_error`: none of five has the
    class of an object and overlaps one of this class by 0.5. `loc/top1_error`: the same of the first guess.
    `loc/top5_class_error`: none of five has the class of an object. `loc/given_class_error`: the guess of the right
    class, wherever it stands, overlaps no object (He et al. 2015, table 13). Errors are those of `evaluate_coco`.
    """
    problem = coco_problem(ground_truth, results, iou_type="bbox", image_ids=image_ids, limits=(ALL,))
    guesses = _guesses(problem)
    there, placed = _right_class(problem)[guesses], _right_place(problem)[guesses]
    image = problem.detections.image[guesses]
    with_objects = np.unique(problem.truth.image[~problem.crowd])
    top1, top5 = (_place_in_group(image) < count for count in (1, GUESSES))

    def error(right: Bool[np.ndarray, " n"]) -> float | None:
        found = np.isin(with_objects, image[right])
        return float(1 - found.mean()) if len(with_objects) else None

    return {
        "loc/top5_error": error(top5 & placed),
        "loc/top1_error": error(top1 & placed),
        "loc/top5_class_error": error(top5 & there),
        "loc/given_class_error": error(placed),
    }


def _matched(problem: Problem) -> Bool[np.ndarray, " d"]:
    """Which detections take an object."""
    detection, candidate, iou = overlaps(problem)
    wanted = thresholds(problem.truth.boxes)
    enough = (iou >= wanted[candidate]) & ~problem.crowd[candidate]
    detection, candidate, iou = detection[enough], candidate[enough], iou[enough]
    # detections are ordered by image, class and falling score, so each group is walked through in that order
    order = np.lexsort((candidate, -iou, detection))
    right, taken = np.zeros(len(problem.detections), bool), np.zeros(len(problem.truth), bool)
    for found, object_ in zip(detection[order].tolist(), candidate[order].tolist(), strict=True):
        if not right[found] and not taken[object_]:
            right[found] = taken[object_] = True
    return right


def _guesses(problem: Problem) -> Int64[np.ndarray, " n"]:
    """The best detection of each class of each image, by image and falling score."""
    found = problem.detections
    _, first = np.unique(np.stack((found.image, found.category)), axis=1, return_index=True)
    return first[np.lexsort((found.category[first], -problem.scores[first], found.image[first]))]


def _place_in_group(groups: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """The place of each entry in its group, from 0, where entries of a group follow one another."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    return np.arange(len(groups)) - np.repeat(starts, np.diff(starts, append=len(groups)))


def _right_class(problem: Problem) -> Bool[np.ndarray, " d"]:
    """Whether the image of a detection has an object of its class."""
    return _any_pair(problem, 0.0)


def _right_place(problem: Problem) -> Bool[np.ndarray, " d"]:
    """Whether a detection overlaps an object of its class by 0.5."""
    return _any_pair(problem, MIN_IOU)


def _any_pair(problem: Problem, smallest: float) -> Bool[np.ndarray, " d"]:
    detection, candidate, iou = overlaps(problem)
    right = np.zeros(len(problem.detections), bool)
    right[detection[(iou >= smallest) & ~problem.crowd[candidate]]] = True
    return right
