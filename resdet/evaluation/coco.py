"""COCO's figures: average precision and recall of boxes or masks, over all classes, by class and by size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int64

from resdet.coco.checks import find_ids
from resdet.coco.ground_truth import GroundTruth, ground_truth_from_dict, read_ground_truth
from resdet.coco.results import CocoResults, check_results, read_results
from resdet.coco.run_lengths import RunLengths, checked_masks, mask_areas
from resdet.errors import UserError
from resdet.evaluation.backends import Curves, Problem, Regions, backend_name, compare

__all__ = [
    "CocoResults",
    "GroundTruth",
    "backend_name",
    "evaluate_coco",
    "ground_truth_from_dict",
    "read_ground_truth",
    "read_results",
]

COCO_LIMITS = (1, 10, 100)  # detections per image and class
IOU_TYPES = ("bbox", "segm")
SIZES = {"s": 1, "m": 2, "l": 3}  # area below 32x32 pixels, below 96x96, above; 0 is all
AP50, AP75 = 0, 5  # indices of the IoU thresholds .5, .55, ... .95


def evaluate_coco(
    ground_truth: GroundTruth,
    results: CocoResults,
    *,
    iou_type: str = "bbox",
    backend: str = "auto",
    image_ids: Sequence[int] | None = None,
    max_detections: Sequence[int] = COCO_LIMITS,
) -> dict[str, float | None]:
    """The 12 figures `bbox/AP` ... `bbox/ARl` and `bbox/AP/<class>`, `bbox/AR/<class>`, in [0, 1] (or `segm/...`).

    A figure is None if there are no objects of its kind (crowd regions do not count). `image_ids` restricts the images;
    for masks, images with an annotation without a mask are left out (`GroundTruth.notes`). `max_detections` are limits
    on the best detections per image and class: each gives one AR, and the last applies to all other figures.

    The figures do not depend on the order of `results`: among detections of one image, class and score, the larger is
    first. The size of a mask is its own area; pycocotools uses the box's area if a result has both.

    Raises UserError, naming the entry, for detections that are not finite or do not belong to the ground truth.
    """
    problem = coco_problem(ground_truth, results, iou_type=iou_type, image_ids=image_ids, limits=max_detections)
    return _figures(compare(problem, backend), iou_type, problem.max_detections, ground_truth.class_names)


def coco_problem(
    ground_truth: GroundTruth,
    results: CocoResults,
    *,
    iou_type: str,
    image_ids: Sequence[int] | None,
    limits: Sequence[int],
    one_class: bool = False,
) -> Problem:
    """Validated copies for an evaluator, with images and categories counted from 1; `one_class` merges all classes into
    one.
    """
    if iou_type not in IOU_TYPES:
        raise UserError(f"iou type {iou_type!r} is not known; use bbox or segm")
    if not limits or min(limits) < 1:
        raise UserError(f"numbers of detections {list(limits)} must be 1 or more")
    check_results(results, ground_truth)
    part = scored_part(ground_truth, iou_type=iou_type, image_ids=image_ids)
    number = np.cumsum(part)  # of each image among the scored ones, counted from 1
    truth_index = np.flatnonzero(part[ground_truth.image])
    image, _ = find_ids(results.image_ids, ground_truth.image_ids)
    label, _ = find_ids(results.category_ids, ground_truth.category_ids)
    found_index = np.flatnonzero(part[image])
    if iou_type == "segm":
        truth_masks = _truth_masks(ground_truth, truth_index)
        found_masks = _found_masks(ground_truth, results, image, found_index)
        boxes, areas = np.zeros((len(found_index), 4)), mask_areas(found_masks).astype(np.float64)
    else:
        truth_masks = found_masks = None
        boxes = _boxes(results)[found_index]
        areas = boxes[:, 2] * boxes[:, 3]
    scores = results.scores[found_index]
    classes = np.ones(len(ground_truth.category_ids), dtype=np.int64)
    classes = classes if one_class else np.cumsum(classes)
    found = Regions(number[image[found_index]], classes[label[found_index]], boxes, areas, found_masks, found_index)
    order = _order(found, scores)
    return Problem(
        sizes=ground_truth.sizes[part],
        num_categories=int(classes[-1]),
        truth=Regions(
            number[ground_truth.image[truth_index]],
            classes[ground_truth.label[truth_index]],
            ground_truth.boxes[truth_index],
            ground_truth.areas[truth_index],
            truth_masks,
            truth_index,
        ),
        crowd=ground_truth.crowd[truth_index],
        difficult=ground_truth.difficult[truth_index],
        detections=found.taken(order),
        scores=scores[order],
        max_detections=tuple(sorted(set(limits))),
    )


def scored_part(ground_truth: GroundTruth, *, iou_type: str, image_ids: Sequence[int] | None) -> Bool[np.ndarray, " I"]:
    """The images that are scored: those of the ids, and for masks those whose annotations all have one."""
    return _part(ground_truth, _masked_images(ground_truth, image_ids) if iou_type == "segm" else image_ids)


def _part(ground_truth: GroundTruth, image_ids: Sequence[int] | None) -> Bool[np.ndarray, " I"]:
    if image_ids is None:
        return np.ones(len(ground_truth.image_ids), dtype=bool)
    wanted = np.array(image_ids, dtype=np.int64)
    positions, known = find_ids(wanted, ground_truth.image_ids)
    if not known.all():
        raise UserError(f"{ground_truth.source}: has no image {wanted[~known][0]}, which is to be scored")
    part = np.zeros(len(ground_truth.image_ids), dtype=bool)
    part[positions] = True
    return part


def _boxes(results: CocoResults) -> Float64[np.ndarray, "n 4"]:
    if results.boxes is None:
        raise UserError(f"{results.source}: the results have no bbox; score their masks with --iou-type segm")
    return results.boxes


def _masked_images(ground_truth: GroundTruth, image_ids: Sequence[int] | None) -> list[int]:
    """The images whose annotations all have a mask; in the others some objects cannot be compared with masks."""
    if len(ground_truth.masks) and not ground_truth.masks.present().any():
        raise UserError(
            f"{ground_truth.source}: no annotation has a usable mask (segmentation), which --iou-type segm needs; "
            "score boxes with --iou-type bbox"
        )
    return ground_truth.masked_images(ground_truth.image_ids.tolist() if image_ids is None else image_ids)


def _truth_masks(ground_truth: GroundTruth, index: Int64[np.ndarray, " n"]) -> list[RunLengths]:
    sizes = ground_truth.sizes[ground_truth.image[index]].tolist()
    return [ground_truth.masks.encoded(i, *size) for i, size in zip(index.tolist(), sizes, strict=True)]


def _found_masks(
    ground_truth: GroundTruth, results: CocoResults, image: Int64[np.ndarray, " n"], index: Int64[np.ndarray, " m"]
) -> list[RunLengths]:
    if results.segmentations is None:
        raise UserError(f"{results.source}: the results have no segmentation; score their boxes with --iou-type bbox")
    chosen = index.tolist()
    segmentations = [results.segmentations[i] for i in chosen]
    sizes = [tuple(size) for size in ground_truth.sizes[image[index]].tolist()]
    return checked_masks(segmentations, sizes, lambda i: results.where(chosen[i]))


def _order(found: Regions, scores: Float64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """By image, class and falling score; equal scores by area, the larger first, then by corner or mask.

    pycocotools keeps equal scores in the order of the file, so its AP depends on that order.
    """
    keys = (-scores, found.category, found.image)
    order = np.lexsort(keys)
    equal = np.ones(max(len(order) - 1, 0), dtype=bool)
    for key in keys:
        equal &= np.diff(key[order]) == 0
    if not equal.any():
        return order
    tied = np.zeros(len(order), dtype=bool)
    tied[:-1] |= equal
    tied[1:] |= equal
    group = np.concatenate([[0], np.cumsum(~equal)])[tied]
    entries = order[tied]
    content = [*found.boxes[entries].T[::-1], -found.areas[entries]]
    if found.masks is not None:
        counts = np.array([found.masks[i]["counts"] for i in entries.tolist()], dtype=object)
        content.insert(0, np.unique(counts, return_inverse=True)[1])
    order[tied] = entries[np.lexsort((*content, group))]
    return order


def _figures(curves: Curves, prefix: str, limits: Sequence[int], class_names: Sequence[str]) -> dict[str, float | None]:
    precision, recall = curves.precision, curves.recall
    figures = {
        f"{prefix}/AP": mean_defined(precision[:, :, :, 0, -1]),
        f"{prefix}/AP50": mean_defined(precision[AP50, :, :, 0, -1]),
        f"{prefix}/AP75": mean_defined(precision[AP75, :, :, 0, -1]),
    }
    figures |= {f"{prefix}/AP{s}": mean_defined(precision[:, :, :, i, -1]) for s, i in SIZES.items()}
    figures |= {f"{prefix}/AR{limit}": mean_defined(recall[:, :, 0, m]) for m, limit in enumerate(limits)}
    figures |= {f"{prefix}/AR{s}": mean_defined(recall[:, :, i, -1]) for s, i in SIZES.items()}
    figures |= {f"{prefix}/{figure}/{name}": None for name in class_names for figure in ("AP", "AR")}
    for k, category in enumerate(curves.categories.tolist()):
        name = class_names[category - 1]
        figures[f"{prefix}/AP/{name}"] = mean_defined(precision[:, :, k, 0, -1])
        figures[f"{prefix}/AR/{name}"] = mean_defined(recall[:, k, 0, -1])
    return figures


def mean_defined(values: np.ndarray) -> float | None:
    """The mean of the defined values (-1 is undefined); None if there are none."""
    defined = values[values > -1]
    return float(np.mean(defined)) if len(defined) else None
