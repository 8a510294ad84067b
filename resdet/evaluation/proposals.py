"""Average recall of class-agnostic boxes: the fraction of objects among the best 100, 300 or 1000 proposals."""

from __future__ import annotations

from collections.abc import Sequence

from resdet.coco.ground_truth import GroundTruth
from resdet.coco.results import CocoResults
from resdet.evaluation.backends import compare
from resdet.evaluation.coco import SIZES, coco_problem, mean_defined


def evaluate_proposals(
    ground_truth: GroundTruth,
    results: CocoResults,
    *,
    iou_type: str = "bbox",
    backend: str = "auto",
    image_ids: Sequence[int] | None = None,
    limits: Sequence[int] = (100, 300, 1000),
) -> dict[str, float | None]:
    """`recall/AR100`, and by size `recall/ARs100`, `recall/ARm100`, `recall/ARl100`, for each of `limits`.

    The recall at each limit is the mean over IoU thresholds .5, .55, ... .95 (Hosang et al., 1502.05082; cocoapi with
    useCats=0); classes are ignored. A recall is None if there are no objects of the size. Errors are those of
    `evaluate_coco`.
    """
    problem = coco_problem(
        ground_truth, results, iou_type=iou_type, image_ids=image_ids, limits=limits, one_class=True
    )  # fmt: skip
    recall = compare(problem, backend).recall
    figures: dict[str, float | None] = {}
    for m, limit in enumerate(problem.max_detections):
        figures[f"recall/AR{limit}"] = mean_defined(recall[:, :, 0, m])
        figures |= {f"recall/AR{size}{limit}": mean_defined(recall[:, :, s, m]) for size, s in SIZES.items()}
    return figures
