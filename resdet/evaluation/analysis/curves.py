"""Precision over recall, AP by size of object, and the calibration of scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from resdet.evaluation.analysis.matches import AREAS, THRESHOLDS, Matches
from resdet.evaluation.backends import Problem

RECALLS = np.linspace(0, 1, 101)
SIZE_NAMES = ("all", "small", "medium", "large")
CALIBRATION_BINS = 10
AP50, AP75 = 0, 5  # positions among the thresholds
TINY = np.spacing(1)  # cocoapi adds it to the denominator of precision


@dataclass(frozen=True)
class PrecisionRecall:
    """The best precision at each recall or a higher one, for K classes; NaN for a class without an object to find.

    Rows are IoU 0.5, IoU 0.75 and the mean over IoU .5:.95; the mean over recalls is AP50, AP75 and AP. `best_score` is
    the score threshold with the highest F1 at IoU 0.5; `best_f1` is this F1.
    """

    recalls: Float64[np.ndarray, " 101"]
    ious: tuple[str, str, str]
    precision: Float64[np.ndarray, "3 K 101"]
    mean: Float64[np.ndarray, "3 101"]  # over classes
    best_score: Float64[np.ndarray, " K"]
    best_f1: Float64[np.ndarray, " K"]


@dataclass(frozen=True)
class SizeFigures:
    """Figures over all classes for objects of every size, small, medium and large (COCO's); NaN if there are no such
    objects.
    """

    names: tuple[str, str, str, str]
    objects: Int64[np.ndarray, " 4"]
    ap: Float64[np.ndarray, " 4"]
    ap50: Float64[np.ndarray, " 4"]
    ap75: Float64[np.ndarray, " 4"]
    ar100: Float64[np.ndarray, " 4"]


@dataclass(frozen=True)
class Calibration:
    """Detections by score, in B bins of equal width over [0, 1]: their mean score and the fraction that is correct.

    Correct means IoU 0.5 or more; ignored detections are left out. `ece` is the expected calibration error (Guo et al.
    2017), the mean gap weighted by the bins' counts; None without detections. Scores outside [0, 1] count at its ends.
    """

    edges: Float64[np.ndarray, " B1"]
    counts: Int64[np.ndarray, " B"]
    confidence: Float64[np.ndarray, " B"]  # NaN in an empty bin
    precision: Float64[np.ndarray, " B"]
    ece: float | None


@dataclass(frozen=True)
class Curves:
    """Precision at 101 recalls, and the final recall; NaN for a class without objects of the size."""

    precision: Float64[np.ndarray, "T S K 101"]
    recall: Float64[np.ndarray, "T S K"]


def coco_curves(problem: Problem, matches: Matches) -> Curves:
    """The result of pycocotools' `accumulate` for these matches (there -1 means undefined)."""
    shape = (len(THRESHOLDS), len(AREAS), problem.num_categories)
    precision, recall = np.full((*shape, len(RECALLS)), np.nan), np.full(shape, np.nan)
    right, counted = matches.right, ~matches.ignored
    for k in range(problem.num_categories):
        ranked = by_score(problem, k + 1)
        to_find = np.sum(~matches.truth_ignored[problem.truth.category == k + 1], axis=0)
        for size in np.flatnonzero(to_find).tolist():
            for threshold in range(len(THRESHOLDS)):
                curve = precision_at_recalls(
                    right[ranked, threshold, size], counted[ranked, threshold, size], int(to_find[size])
                )
                precision[threshold, size, k] = curve
                recall[threshold, size, k] = np.sum(right[ranked, threshold, size]) / to_find[size]
    return Curves(precision, recall)


def by_score(problem: Problem, category: int) -> Int64[np.ndarray, " n"]:
    """The detections of a category (counted from 1), best first."""
    rows = np.flatnonzero(problem.detections.category == category)
    return rows[np.argsort(-problem.scores[rows], kind="stable")]


def precision_at_recalls(
    right: Bool[np.ndarray, " n"], counted: Bool[np.ndarray, " n"], objects: int
) -> Float64[np.ndarray, " 101"]:
    """For detections ordered by score, the best precision at each recall or a higher one; 0 if the recall is not
    reached.

    `counted` are the detections that are not ignored; `objects` (1 or more) is the number of objects to be found.
    """
    found = np.cumsum(right)[right]  # between correct detections precision only decreases
    precision = found / (np.cumsum(counted)[right] + TINY)
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return envelope[np.searchsorted(found / objects, RECALLS, side="left")]


def precision_recall(problem: Problem, matches: Matches, curves: Curves) -> PrecisionRecall:
    """Curves of each class and over all classes."""
    whole = curves.precision[:, 0]
    precision = np.stack([whole[AP50], whole[AP75], whole.mean(axis=0)])
    best = [_best_f1(problem, matches, k + 1) for k in range(problem.num_categories)]
    score, f1 = np.array(best).reshape(-1, 2).T
    return PrecisionRecall(RECALLS, ("0.50", "0.75", "0.50:0.95"), precision, _mean(precision, axis=1), score, f1)


def _best_f1(problem: Problem, matches: Matches, category: int) -> tuple[float, float]:
    """The score threshold with the highest F1, and this F1 = 2 correct / (detections + objects)."""
    ranked = by_score(problem, category)
    ranked = ranked[~matches.ignored[ranked, AP50, 0]]
    objects = np.sum(~matches.truth_ignored[problem.truth.category == category, 0])
    if not len(ranked) or not objects:
        return np.nan, np.nan
    scores = problem.scores[ranked]
    f1 = 2 * np.cumsum(matches.right[ranked, AP50, 0]) / (np.arange(1, len(ranked) + 1) + objects)
    cut = np.append(np.diff(scores) != 0, True)  # detections with equal scores are accepted together
    best = int(np.argmax(np.where(cut, f1, -1.0)))
    return float(scores[best]), float(f1[best])


def size_figures(matches: Matches, curves: Curves) -> SizeFigures:
    """AP and recall by size of object."""
    ap = curves.precision.mean(axis=-1)
    by_size = ap.transpose(1, 0, 2)
    return SizeFigures(
        names=SIZE_NAMES,
        objects=np.sum(~matches.truth_ignored, axis=0),
        ap=_mean(by_size.reshape(len(AREAS), -1), axis=1),
        ap50=_mean(ap[AP50], axis=1),
        ap75=_mean(ap[AP75], axis=1),
        ar100=_mean(curves.recall.transpose(1, 0, 2).reshape(len(AREAS), -1), axis=1),
    )


def calibration(problem: Problem, matches: Matches, *, bins: int = CALIBRATION_BINS) -> Calibration:
    """The reliability of scores at IoU 0.5."""
    counted = ~matches.ignored[:, AP50, 0]
    scores = np.clip(problem.scores[counted], 0, 1)
    right = matches.right[counted, AP50, 0]
    bin_of = np.minimum((scores * bins).astype(np.int64), bins - 1)
    counts = np.bincount(bin_of, minlength=bins)
    sums = (np.bincount(bin_of, weights=values, minlength=bins) for values in (scores, right))
    confidence, precision = (np.divide(s, counts, out=np.full(bins, np.nan), where=counts > 0) for s in sums)
    gaps = np.abs(confidence - precision)[counts > 0] * counts[counts > 0]
    ece = float(gaps.sum() / counts.sum()) if counts.sum() else None
    return Calibration(np.linspace(0, 1, bins + 1), counts, confidence, precision, ece)


def _mean(values: Float64[np.ndarray, "..."], *, axis: int) -> Float64[np.ndarray, "..."]:
    """The mean of the defined values; NaN if there are none."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=axis)
    total = np.where(defined, values, 0).sum(axis=axis)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
