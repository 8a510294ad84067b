"""Metrics: what turns detections into figures, what each figure means, and which way is better. A row each."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from resdet.coco.ground_truth import GroundTruth
from resdet.coco.results import CocoResults
from resdet.evaluation.coco import evaluate_coco
from resdet.evaluation.ilsvrc import evaluate_ilsvrc_det, evaluate_ilsvrc_loc
from resdet.evaluation.lvis import evaluate_lvis
from resdet.evaluation.proposals import evaluate_proposals
from resdet.evaluation.voc import evaluate_voc

OWN_BACKEND = "resdet"  # what to write where figures name their evaluator and the metric compares by itself


class Figure(NamedTuple):
    """`name` is a regular expression of a whole name; `meaning` may take its groups."""

    name: str
    meaning: str
    higher_is_better: bool = True


@dataclass(frozen=True)
class Scoring:
    """What is scored (all images of the ground truth, or those of these ids), and how those metrics compare that have
    no comparison of their own (`Metric.own_comparison`): boxes or masks (bbox | segm), by which backend."""

    image_ids: Sequence[int] | None = None
    iou_type: str = "bbox"
    backend: str = "auto"


@dataclass(frozen=True)
class Metric:
    """`score` gives figures by name, in [0, 1], None where undefined; those of a class end in /CLASS.

    `figures` are those over all classes. `own_comparison`: it compares boxes by its own code,
    whatever IoU type and backend a `Scoring` names.
    """

    score: Callable[[GroundTruth, CocoResults, Scoring], dict[str, float | None]]
    figures: tuple[Figure, ...]
    own_comparison: bool = True


def _coco(truth: GroundTruth, results: CocoResults, how: Scoring) -> dict[str, float | None]:
    return evaluate_coco(truth, results, iou_type=how.iou_type, backend=how.backend, image_ids=how.image_ids)


def _recall(truth: GroundTruth, results: CocoResults, how: Scoring) -> dict[str, float | None]:
    return evaluate_proposals(truth, results, iou_type=how.iou_type, backend=how.backend, image_ids=how.image_ids)


def _voc07(truth: GroundTruth, results: CocoResults, how: Scoring) -> dict[str, float | None]:
    return evaluate_voc(truth, results, rule="voc07", image_ids=how.image_ids)


def _voc12(truth: GroundTruth, results: CocoResults, how: Scoring) -> dict[str, float | None]:
    return evaluate_voc(truth, results, rule="voc12", image_ids=how.image_ids)


def _ilsvrc_det(truth: GroundTruth, results: CocoResults, how: Scoring) -> dict[str, float | None]:
    return evaluate_ilsvrc_det(truth, results, image_ids=how.image_ids)


def _ilsvrc_loc(truth: GroundTruth, results: CocoResults, how: Scoring) -> dict[str, float | None]:
    return evaluate_ilsvrc_loc(truth, results, image_ids=how.image_ids)


def _lvis(truth: GroundTruth, results: CocoResults, how: Scoring) -> dict[str, float | None]:
    return evaluate_lvis(truth, results, iou_type=how.iou_type, backend=how.backend, image_ids=how.image_ids)


COCO_FIGURES = (
    Figure(r"(?:bbox|segm)/AP", "average precision, mean over IoU .50:.95"),
    Figure(r"(?:bbox|segm)/AP(\d\d)", "average precision at IoU .{}"),
    Figure(r"(?:bbox|segm)/AR(\d+)", "average recall, best {} an image"),
    Figure(r"(?:bbox|segm)/(A[PR])s", "{} of small objects, up to 32x32 pixels"),
    Figure(r"(?:bbox|segm)/(A[PR])m", "{} of medium objects"),
    Figure(r"(?:bbox|segm)/(A[PR])l", "{} of large objects, from 96x96 pixels"),
)
RECALL_FIGURES = (
    Figure(r"recall/AR(\d+)", "average recall, best {} an image"),
    Figure(r"recall/ARs(\d+)", "AR of small objects, up to 32x32 pixels, best {}"),
    Figure(r"recall/ARm(\d+)", "AR of medium objects, best {}"),
    Figure(r"recall/ARl(\d+)", "AR of large objects, from 96x96 pixels, best {}"),
)
LVIS_FIGURES = (
    Figure(r"lvis(?:-segm)?/AP", "LVIS's average precision, mean over IoU .50:.95"),
    Figure(r"lvis(?:-segm)?/AP(\d\d)", "LVIS's average precision at IoU .{}"),
    Figure(r"lvis(?:-segm)?/AP([sml])", "LVIS's average precision by size, {}"),
    Figure(r"lvis(?:-segm)?/AP([rcf])", "LVIS's average precision of rare (r), common and frequent classes: {}"),
)
VOC_FIGURES = (Figure(r"voc/AP50", "Pascal VOC average precision at IoU .50, mean over classes"),)
ILSVRC_DET_FIGURES = (Figure(r"ilsvrc/AP", "ILSVRC's average precision at its own overlaps, mean over classes"),)
ILSVRC_LOC_FIGURES = (
    Figure(r"loc/top([15])_error", "share of images without a right class and box among {}", higher_is_better=False),
    Figure(r"loc/top5_class_error", "share of images whose five best classes are wrong", higher_is_better=False),
    Figure(r"loc/given_class_error", "share of images whose box of the right class is wrong", higher_is_better=False),
)
CLASSIFICATION_FIGURES = (
    Figure(r"top1/accuracy", "share of images whose best class is right"),
    Figure(r"top1/error", "share of images whose best class is wrong", higher_is_better=False),
    Figure(r"top5/error", "share of images whose five best classes are wrong", higher_is_better=False),
    Figure(r"train/error", "the same on training images", higher_is_better=False),
)
LOSS_FIGURES = (
    Figure(r"val/loss", "sum of the losses on the val images", higher_is_better=False),
    Figure(r"val/loss_(\w+)", "{}, a part of it", higher_is_better=False),
)
METRICS = {
    "coco": Metric(_coco, COCO_FIGURES, own_comparison=False),
    "lvis": Metric(_lvis, LVIS_FIGURES, own_comparison=False),
    "voc07": Metric(_voc07, VOC_FIGURES),
    "voc12": Metric(_voc12, VOC_FIGURES),
    "ilsvrc_det": Metric(_ilsvrc_det, ILSVRC_DET_FIGURES),
    "ilsvrc_loc": Metric(_ilsvrc_loc, ILSVRC_LOC_FIGURES),
    "recall": Metric(_recall, RECALL_FIGURES, own_comparison=False),
}


def figure(name: str) -> Figure | None:
    """The row of a figure over all classes, with its meaning filled in; None for one that is not known."""
    for row in (
        *(row for metric in METRICS.values() for row in metric.figures),
        *CLASSIFICATION_FIGURES,
        *LOSS_FIGURES,
    ):
        if match := re.fullmatch(row.name, name):
            return Figure(name, row.meaning.format(*match.groups()), row.higher_is_better)
    return None


def meaning(name: str) -> str:
    """What a figure is, in words; empty for one that is not known."""
    row = figure(name)
    return row.meaning if row else ""


def overall(figures: Mapping[str, float | None]) -> dict[str, float | None]:
    """The figures over all classes."""
    return {name: value for name, value in figures.items() if name.count("/") == 1}


def by_class(figures: Mapping[str, float | None]) -> dict[str, dict[str, float | None]]:
    """{"person": {"bbox/AP": .27, "bbox/AR": .41}, ...}; a class name may contain slashes."""
    rows: dict[str, dict[str, float | None]] = {}
    for name, value in figures.items():
        if name.count("/") > 1:
            kind, figure, class_name = name.split("/", 2)
            rows.setdefault(class_name, {})[f"{kind}/{figure}"] = value
    return rows
