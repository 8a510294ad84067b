"""The types of a detector's errors, and the cost of each type (TIDE, Bolya et al. 2020, arXiv:2008.08115).

Matching is COCO's at IoU 0.5. Every unmatched detection that is not ignored gets the first type that applies:

    localisation     overlaps an object of its class by 0.1 up to 0.5
    classification   overlaps an object of another class by 0.5 or more
    duplicate        overlaps an object of its class by 0.5 or more, which a better detection has taken
    background       overlaps no object by 0.1
    both             everything else: an object of another class, by 0.1 up to 0.5

    missed           an object without a correct detection and without a classification or localisation error

Crowd regions are not objects here, and detections on them are not errors. The effect of correcting one type alone:

    classification, localisation   the detection becomes correct and keeps its score: it gets the class, or the box, of
                                   its object. If several such errors have the same object, only the best-scored one
                                   is corrected, and none if the object is already found; the others are removed
    duplicate, background, both    the detections are removed
    missed                         the objects are removed; a class without objects then has AP 1 if it has no
                                   detections either

If every class has objects and none is a crowd region, counts and costs equal those of the paper's program, tidecv
1.0.1, except for the rounding of its 101 recalls; here the recalls are COCO's.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from resdet.evaluation.analysis.curves import precision_at_recalls
from resdet.evaluation.analysis.matches import NONE, Matches, Pairs, greedy
from resdet.evaluation.backends import Problem

ERROR_TYPES = ("classification", "localisation", "both", "duplicate", "background", "missed")
CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND, MISSED = range(6)
NO_ERROR = -1
ERROR_MEANINGS = {
    "classification": "on an object of another class",
    "localisation": "on an object of its class, IoU .1 to .5",
    "both": "on an object of another class, IoU .1 to .5",
    "duplicate": "on an object that a better detection found",
    "background": "on nothing, IoU below .1",
    "missed": "objects that nothing of the above points at",
    "false positives": "all wrong detections",
    "false negatives": "all objects without a right detection",
}
FOREGROUND_IOU, BACKGROUND_IOU = 0.5, 0.1


@dataclass(frozen=True)
class ErrorBreakdown:
    """Counts of each error type at any score, and the AP50 that each costs: AP50 after its correction minus the present
    AP50.

    `cost` also has "false positives" (every wrong detection removed) and "false negatives" (every object without a
    correct detection removed). None if there are no objects to find. `by_class` counts by the class of the detection,
    and counts missed objects by their own class.
    """

    ap50: float | None
    counts: dict[str, int]
    cost: dict[str, float | None]
    by_class: Int64[np.ndarray, "6 K"]


@dataclass(frozen=True)
class ConfusionMatrix:
    """The number of objects of one class (row) that were detected as another (column), with a score above the
    threshold.

    The last row counts detections without an object, the last column objects without a detection.
    """

    counts: Int64[np.ndarray, "K1 K1"]
    score_threshold: float
    iou: float


@dataclass(frozen=True)
class ImageErrors:
    """Counts in each of I images: missed objects, wrong detections and correct detections, with a score above the
    threshold.
    """

    image_ids: Int64[np.ndarray, " I"]
    missed: Int64[np.ndarray, " I"]
    false: Int64[np.ndarray, " I"]
    found: Int64[np.ndarray, " I"]


@dataclass(frozen=True)
class WorstImage:
    """The content of the drawing of one image: indices of objects in the ground truth, and of detections in the
    results.
    """

    image_id: int
    missed: Int64[np.ndarray, " m"]
    false: Int64[np.ndarray, " f"]
    false_types: tuple[str, ...]
    found: Int64[np.ndarray, " t"]


@dataclass(frozen=True)
class Findings:
    """The status of each of D detections and G objects at IoU 0.5."""

    error: Int64[np.ndarray, " D"]  # an index into ERROR_TYPES, or NO_ERROR (correct or ignored)
    points_at: Int64[np.ndarray, " D"]  # the object of a classification or localisation error, or NONE
    right: Bool[np.ndarray, " D"]
    taken: Int64[np.ndarray, " D"]  # the object of a correct detection, or NONE
    to_find: Bool[np.ndarray, " G"]
    found: Bool[np.ndarray, " G"]
    missed: Bool[np.ndarray, " G"]


def find_errors(problem: Problem, pairs: Pairs, matches: Matches) -> Findings:
    """Determines the error of each detection, from all pairs with IoU 0.1 or more."""
    count, objects = len(problem.detections), len(problem.truth)
    right = matches.right[:, 0, 0]
    wrong = ~right & ~matches.ignored[:, 0, 0]
    pairs = pairs.where(wrong[pairs.detection] & ~problem.crowd[pairs.truth])
    same = problem.detections.category[pairs.detection] == problem.truth.category[pairs.truth]
    own, own_iou = _best(pairs.where(same), count)
    other, other_iou = _best(pairs.where(~same), count)
    conditions = (
        (own_iou >= BACKGROUND_IOU) & (own_iou < FOREGROUND_IOU),
        other_iou >= FOREGROUND_IOU,
        own_iou >= FOREGROUND_IOU,
        np.maximum(own_iou, other_iou) < BACKGROUND_IOU,
    )
    kind = np.select(conditions, (LOCALISATION, CLASSIFICATION, DUPLICATE, BACKGROUND), default=BOTH)
    error = np.where(wrong, kind, NO_ERROR)
    points_at = np.where(error == LOCALISATION, own, np.where(error == CLASSIFICATION, other, NONE))
    taken = np.where(right, matches.truth[:, 0, 0], NONE).astype(np.int64)
    found, covered = np.zeros(objects, dtype=bool), np.zeros(objects, dtype=bool)
    found[taken[right]] = True
    covered[points_at[points_at != NONE]] = True
    to_find = ~problem.crowd
    return Findings(error, points_at, right, taken, to_find, found, to_find & ~found & ~covered)


def _best(pairs: Pairs, count: int) -> tuple[Int64[np.ndarray, " D"], Float64[np.ndarray, " D"]]:
    """The object with the largest overlap for each detection (or NONE), and this overlap (0 if there is none)."""
    # if a detection has several pairs, its last pair is assigned
    order = np.lexsort((-pairs.truth, pairs.iou, pairs.detection))
    best, iou = np.full(count, NONE), np.zeros(count)
    best[pairs.detection[order]] = pairs.truth[order]
    iou[pairs.detection[order]] = pairs.iou[order]
    return best, iou


def error_breakdown(problem: Problem, findings: Findings) -> ErrorBreakdown:
    """Counts, and the AP50 after each correction."""
    kinds = problem.num_categories
    by_class = np.zeros((len(ERROR_TYPES), kinds), dtype=np.int64)
    wrong = findings.error != NO_ERROR
    np.add.at(by_class, (findings.error[wrong], problem.detections.category[wrong] - 1), 1)
    by_class[MISSED] = np.bincount(problem.truth.category[findings.missed] - 1, minlength=kinds)
    mendings = {name: {code} for code, name in enumerate(ERROR_TYPES)}
    ap50 = ap50_after(problem, findings, mended=())
    after = {name: ap50_after(problem, findings, mended=codes) for name, codes in mendings.items()}
    after["false positives"] = _ap50(problem, findings.right, findings.right, findings.to_find)
    counted = findings.right | wrong
    after["false negatives"] = _ap50(problem, counted, findings.right, findings.found, classes=findings.to_find)
    return ErrorBreakdown(
        ap50=ap50,
        counts=dict(zip(ERROR_TYPES, by_class.sum(axis=1).tolist(), strict=True)),
        cost={name: None if ap50 is None or value is None else value - ap50 for name, value in after.items()},
        by_class=by_class,
    )


def ap50_after(problem: Problem, findings: Findings, *, mended: Collection[int]) -> float | None:
    """The mean AP at IoU 0.5 after the correction of the error types `mended` together; None if there are no objects to
    find.
    """
    right, category = findings.right.copy(), problem.detections.category.copy()
    winners = _best_pointers(problem, findings)
    winners = winners[np.isin(findings.error[winners], list(mended))]
    right[winners] = True
    category[winners] = problem.truth.category[findings.points_at[winners]]
    counted = right | ((findings.error != NO_ERROR) & ~np.isin(findings.error, list(mended)))
    objects = findings.to_find & ~findings.missed if MISSED in mended else findings.to_find
    return _ap50(problem, counted, right, objects, classes=findings.to_find, category=category)


def _best_pointers(problem: Problem, findings: Findings) -> Int64[np.ndarray, " w"]:
    """The classification or localisation error with the best score for each object that has no correct detection."""
    pointing = np.flatnonzero(findings.points_at != NONE)
    pointing = pointing[~findings.found[findings.points_at[pointing]]]
    pointing = pointing[np.argsort(-problem.scores[pointing], kind="stable")]
    _, first = np.unique(findings.points_at[pointing], return_index=True)
    return pointing[first]


def _ap50(
    problem: Problem,
    counted: Bool[np.ndarray, " D"],
    right: Bool[np.ndarray, " D"],
    objects: Bool[np.ndarray, " G"],
    *,
    classes: Bool[np.ndarray, " G"] | None = None,
    category: Int64[np.ndarray, " D"] | None = None,
) -> float | None:
    """The AP50 over the classes of the objects `classes`, for the `counted` detections and the given `objects`."""
    category = problem.detections.category if category is None else category
    classes = objects if classes is None else classes
    rows = np.flatnonzero(counted)
    ranked = rows[np.lexsort((-problem.scores[rows], category[rows]))]
    kinds = np.arange(problem.num_categories + 2)
    bounds = np.searchsorted(category[ranked], kinds)
    positives = np.bincount(problem.truth.category[objects], minlength=len(kinds))
    values = []
    for k in np.unique(problem.truth.category[classes]).tolist():
        own = ranked[bounds[k] : bounds[k + 1]]
        if positives[k]:
            curve = precision_at_recalls(right[own], np.ones(len(own), dtype=bool), int(positives[k]))
            values.append(float(curve.mean()))
        else:
            values.append(0.0 if len(own) else 1.0)
    return float(np.mean(values)) if values else None


def confusion_matrix(
    problem: Problem, pairs: Pairs, findings: Findings, matches: Matches, *, score_threshold: float
) -> ConfusionMatrix:
    """COCO's matches first; then each remaining detection, best score first, takes the free object with the largest
    overlap.
    """
    kinds = problem.num_categories
    found, truth = problem.detections, problem.truth
    confident = (problem.scores >= score_threshold) & ~matches.ignored[:, 0, 0]
    taken = np.where(confident, findings.taken, NONE)
    free = findings.to_find.copy()
    free[taken[taken != NONE]] = False
    left = confident & (taken == NONE)
    ranked = np.argsort(-problem.scores, kind="stable")
    priority = np.empty(len(ranked), dtype=np.int64)
    priority[ranked] = np.arange(len(ranked))
    mistaken = greedy(
        pairs.where(left[pairs.detection] & free[pairs.truth]),
        group=found.image,
        priority=priority,
        thresholds=np.array([FOREGROUND_IOU]),
        ignored=np.zeros((len(truth), 1), dtype=bool),
        shared=np.zeros(len(truth), dtype=bool),
    )[:, 0, 0]
    taken = np.where(left, mistaken, taken)
    free[taken[taken != NONE]] = False
    true_class = np.append(truth.category - 1, kinds)[taken]  # NONE selects the last row or column
    counts = np.zeros((kinds + 1, kinds + 1), dtype=np.int64)
    np.add.at(counts, (true_class[confident], found.category[confident] - 1), 1)
    counts[:kinds, kinds] = np.bincount(truth.category[free] - 1, minlength=kinds)
    return ConfusionMatrix(counts, score_threshold, FOREGROUND_IOU)


def image_errors(
    problem: Problem, findings: Findings, image_ids: Int64[np.ndarray, " I"], *, score_threshold: float, worst: int
) -> tuple[ImageErrors, tuple[WorstImage, ...]]:
    """Counts by image, and the `worst` images: those with the most errors; among equals, the one with the higher scores
    of its errors.
    """
    confident = problem.scores >= score_threshold
    false = (findings.error != NO_ERROR) & confident
    right = findings.right & confident
    missed = findings.to_find.copy()
    missed[findings.taken[right]] = False
    image, truth_image, size = problem.detections.image - 1, problem.truth.image - 1, len(image_ids)
    counts = ImageErrors(
        image_ids,
        np.bincount(truth_image[missed], minlength=size),
        np.bincount(image[false], minlength=size),
        np.bincount(image[right], minlength=size),
    )
    sureness = np.bincount(image[false], weights=problem.scores[false], minlength=size)
    errors = counts.missed + counts.false
    order = np.lexsort((-sureness, -errors))[:worst]
    ranking = []
    for i in order[errors[order] > 0].tolist():
        wrong_here, right_here = np.flatnonzero(false & (image == i)), np.flatnonzero(right & (image == i))
        ranking.append(
            WorstImage(
                image_id=int(image_ids[i]),
                missed=problem.truth.rows[missed & (truth_image == i)],
                false=problem.detections.rows[wrong_here],
                false_types=tuple(ERROR_TYPES[code] for code in findings.error[wrong_here].tolist()),
                found=problem.detections.rows[right_here],
            )
        )
    return counts, tuple(ranking)
