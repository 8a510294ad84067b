"""Runs the two evaluators on the same validated copies: pycocotools, the reference, and hotcoco, which is faster."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from resdet.coco.run_lengths import RunLengths
from resdet.errors import UserError, did_you_mean

CHOICES = ("auto", "pycocotools", "hotcoco")


@dataclass(frozen=True)
class Regions:
    """n boxes or masks; images and categories are counted from 1."""

    image: Int64[np.ndarray, " n"]
    category: Int64[np.ndarray, " n"]
    boxes: Float64[np.ndarray, "n 4"]  # x, y, width, height
    areas: Float64[np.ndarray, " n"]
    masks: list[RunLengths] | None
    rows: Int64[np.ndarray, " n"]  # their indices in GroundTruth, or in CocoResults

    def __len__(self) -> int:
        return len(self.image)

    def taken(self, order: Int64[np.ndarray, " m"]) -> Regions:
        """The regions at these positions, in this order."""
        masks = None if self.masks is None else [self.masks[i] for i in order.tolist()]
        columns = (self.image, self.category, self.boxes, self.areas)
        image, category, boxes, areas = (column[order] for column in columns)
        return Regions(image, category, boxes, areas, masks, self.rows[order])


@dataclass(frozen=True)
class Problem:
    """The input of an evaluator. The order of the detections decides between equal scores."""

    sizes: Int64[np.ndarray, "I 2"]  # (height, width)
    num_categories: int
    truth: Regions
    crowd: Bool[np.ndarray, " n"]
    difficult: Bool[np.ndarray, " n"]  # for VOC
    detections: Regions
    scores: Float64[np.ndarray, " d"]
    max_detections: tuple[int, ...]

    @property
    def iou_type(self) -> Literal["bbox", "segm"]:
        return "bbox" if self.truth.masks is None else "segm"

    def of_categories(self, chosen: Int64[np.ndarray, " K"]) -> Problem:
        """The problem of these categories alone (ascending, with all that have objects), counted from 1 again."""
        if len(chosen) == self.num_categories:
            return self
        kept = np.flatnonzero(np.isin(self.detections.category, chosen))
        truth, found = self.truth, self.detections.taken(kept)
        return replace(
            self,
            num_categories=len(chosen),
            truth=replace(truth, category=np.searchsorted(chosen, truth.category) + 1),
            detections=replace(found, category=np.searchsorted(chosen, found.category) + 1),
            scores=self.scores[kept],
        )

    def images(self) -> list[dict[str, Any]]:
        return [{"id": i, "height": h, "width": w} for i, (h, w) in enumerate(self.sizes.tolist(), start=1)]

    def categories(self) -> list[dict[str, Any]]:
        return [{"id": k, "name": str(k)} for k in range(1, self.num_categories + 1)]


@dataclass(frozen=True)
class Curves:
    """The output of an evaluator; -1 means that there are no objects to find.

    T IoU thresholds .5, .55, ... .95; R recalls 0, .01, ... 1; K categories with objects; S sizes all, small, medium,
    large; M the limits of counted detections per image and category.
    """

    precision: Float64[np.ndarray, "T R K S M"]
    recall: Float64[np.ndarray, "T K S M"]
    categories: Int64[np.ndarray, " K"]  # their numbers, ascending


def chosen_backend(choice: str) -> str:
    """`auto` is hotcoco if it is installed, otherwise pycocotools. Raises UserError for an unknown or
    absent backend.
    """
    if choice not in CHOICES:
        raise UserError(f"evaluation backend {choice} is not known{did_you_mean(choice, CHOICES)}")
    installed = importlib.util.find_spec("hotcoco") is not None
    if choice == "hotcoco" and not installed:
        raise UserError("evaluation backend hotcoco is not installed; pip install 'resdet[fast]', or use pycocotools")
    if choice == "auto":
        return "hotcoco" if installed else "pycocotools"
    return choice


def backend_name(choice: str) -> str:
    """The backend that `choice` selects on this machine, with its version: "hotcoco 1.3.0"."""
    name = chosen_backend(choice)
    return f"{name} {importlib.metadata.version(name)}"


def compare(problem: Problem, backend: str) -> Curves:
    """Precision and recall by the backend named (auto | pycocotools | hotcoco).

    The evaluators make a table of all categories and thresholds, so they get only the categories that have objects:
    nothing is defined for the others.
    """
    by_backend = _hotcoco if chosen_backend(backend) == "hotcoco" else _pycocotools
    categories = np.unique(problem.truth.category)
    if not len(categories):
        sizes, limits = 4, len(problem.max_detections)
        return Curves(np.zeros((10, 101, 0, sizes, limits)), np.zeros((10, 0, sizes, limits)), categories)
    return Curves(*by_backend(problem.of_categories(categories)), categories)


def _pycocotools(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall, as in `Curves`."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def indexed(annotations: list[dict[str, Any]]) -> COCO:
        coco: Any = COCO()
        coco.dataset = {
            "images": problem.images(),
            "categories": problem.categories(),
            "annotations": annotations,
        }
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth = indexed(_annotations(problem.truth, "iscrowd", problem.crowd.astype(np.int64)))
        detections = indexed(_annotations(problem.detections, "score", problem.scores, iscrowd=0))
        evaluation: Any = COCOeval(truth, detections, problem.iou_type)
        evaluation.params.maxDets = list(problem.max_detections)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def _annotations(regions: Regions, field: str, values: np.ndarray, **constant: int) -> list[dict[str, Any]]:
    columns = (regions.image, regions.category, regions.boxes, regions.areas, values)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    annotations: list[dict[str, Any]] = [
        {"id": i, "image_id": image, "category_id": category, "bbox": box, "area": area, field: value, **constant}
        for i, (image, category, box, area, value) in enumerate(rows, start=1)  # id 0 would mean "no match"
    ]
    for annotation, mask in zip(annotations, regions.masks or (), strict=regions.masks is not None):
        annotation["segmentation"] = mask
    return annotations


def _hotcoco(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    import hotcoco

    regions = problem.truth
    truth = hotcoco.COCO.from_arrays(
        problem.images(),
        problem.categories(),
        regions.image,
        regions.category,
        regions.boxes,
        ids=np.arange(1, len(regions) + 1),
        area=regions.areas,
        iscrowd=problem.crowd.astype(np.int64),
        segmentation=regions.masks,  # pyright: ignore[reportArgumentType]
    )
    found = problem.detections
    table = np.column_stack([found.image, found.boxes, problem.scores, found.category])
    detections = truth.load_res(table, segmentation=found.masks)  # pyright: ignore[reportArgumentType]
    detections.update_anns(ids=np.arange(1, len(found) + 1), area=found.areas)
    evaluation: Any = hotcoco.COCOeval(truth, detections, problem.iou_type)
    evaluation.params.max_dets = list(problem.max_detections)
    evaluation.evaluate()
    evaluation.accumulate()
    curves = evaluation.eval
    return curves["precision"], curves["recall"]
