"""Analyses a detector's results in one call: errors, confusion, curves, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from resdet.coco.ground_truth import GroundTruth
from resdet.coco.results import CocoResults
from resdet.evaluation.analysis.curves import (
    Calibration,
    PrecisionRecall,
    SizeFigures,
    calibration,
    coco_curves,
    precision_recall,
    size_figures,
)
from resdet.evaluation.analysis.errors import (
    BACKGROUND_IOU,
    ConfusionMatrix,
    ErrorBreakdown,
    ImageErrors,
    WorstImage,
    confusion_matrix,
    error_breakdown,
    find_errors,
    image_errors,
)
from resdet.evaluation.analysis.matches import match, overlapping_pairs
from resdet.evaluation.coco import coco_problem

MAX_DETECTIONS = 100  # per image and class, as in COCO's figures


@dataclass(frozen=True)
class Analysis:
    """The analysis of the best 100 detections per image and class. In arrays of floats, NaN means undefined."""

    iou_type: str
    class_names: tuple[str, ...]
    score_threshold: float  # the lowest score of the detections in `confusion`, `images` and `worst`
    errors: ErrorBreakdown
    confusion: ConfusionMatrix
    curves: PrecisionRecall
    sizes: SizeFigures
    calibration: Calibration
    images: ImageErrors
    worst: tuple[WorstImage, ...]


def analyse(
    ground_truth: GroundTruth,
    results: CocoResults,
    *,
    iou_type: str = "bbox",
    image_ids: Sequence[int] | None = None,
    score_threshold: float = 0.5,
    worst: int = 24,
) -> Analysis:
    """Error breakdown, confusion matrix, curves, AP by size, calibration and the `worst` images of boxes or masks.

    Arguments and errors are those of `evaluate_coco`; its AP, AP50 and AP75 are the means of the curves.
    """
    problem = coco_problem(ground_truth, results, iou_type=iou_type, image_ids=image_ids, limits=(MAX_DETECTIONS,))
    pairs = overlapping_pairs(problem, least=BACKGROUND_IOU)
    matches = match(problem, pairs)
    findings = find_errors(problem, pairs, matches)
    curves = coco_curves(problem, matches)
    scored = ground_truth.image_ids if image_ids is None else np.unique(np.array(image_ids, dtype=np.int64))
    images, ranking = image_errors(problem, findings, scored, score_threshold=score_threshold, worst=worst)
    return Analysis(
        iou_type=iou_type,
        class_names=ground_truth.class_names,
        score_threshold=score_threshold,
        errors=error_breakdown(problem, findings),
        confusion=confusion_matrix(problem, pairs, findings, matches, score_threshold=score_threshold),
        curves=precision_recall(problem, matches, curves),
        sizes=size_figures(matches, curves),
        calibration=calibration(problem, matches),
        images=images,
        worst=ranking,
    )
