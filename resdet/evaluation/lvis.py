"""LVIS's figures (Gupta et al. 2019): COCO's average precision where only some classes were looked for in each image.

A detection of a class that was not looked for in its image does not count. Of a class that is not marked exhaustively
in an image, detections on no object do not count either; here a crowd region as large as the image absorbs them, which
COCO's rules ignore. The 300 detections of an image with the highest scores count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int64

from resdet.coco.ground_truth import GroundTruth
from resdet.coco.results import CocoResults
from resdet.coco.run_lengths import RunLengths, compress
from resdet.errors import UserError
from resdet.evaluation.backends import Curves, Problem, Regions, compare
from resdet.evaluation.coco import SIZES, coco_problem, mean_defined, scored_part

LIMIT = 300  # detections an image, over all classes
FREQUENCIES = ("r", "c", "f")  # rare: in up to 10 training images; common: up to 100; frequent


def evaluate_lvis(
    ground_truth: GroundTruth,
    results: CocoResults,
    *,
    iou_type: str = "bbox",
    backend: str = "auto",
    image_ids: Sequence[int] | None = None,
) -> dict[str, float | None]:
    """`lvis/AP`, AP50, AP75, APs, APm, APl, APr, APc and APf, of masks `lvis-segm/...`; None without objects.

    Raises UserError for a ground truth that does not say which classes were looked for.
    """
    federated = ground_truth.federated
    if federated is None:
        raise UserError(f"{ground_truth.source}: no image has neg_category_ids; the metric lvis is for LVIS's files")
    problem = coco_problem(ground_truth, results, iou_type=iou_type, image_ids=image_ids, limits=(LIMIT,))
    part = scored_part(ground_truth, iou_type=iou_type, image_ids=image_ids)
    number = np.cumsum(part)

    def cells(rows: Int64[np.ndarray, "n 2"]) -> Int64[np.ndarray, " m"]:
        chosen = rows[part[rows[:, 0]]]
        return _cells(number[chosen[:, 0]], chosen[:, 1] + 1, problem)

    looked_for = np.concatenate((cells(federated.absent), _cells(problem.truth.image, problem.truth.category, problem)))
    everywhere = ~federated.federated[part]
    found = problem.detections
    counts = np.isin(_cells(found.image, found.category, problem), looked_for) | everywhere[found.image - 1]
    scored = _absorbing(_with(problem, counts & _best(problem)), cells(federated.partial))
    return _figures(compare(scored, backend), iou_type, federated.frequency)


def _cells(
    image: Int64[np.ndarray, " n"], category: Int64[np.ndarray, " n"], problem: Problem
) -> Int64[np.ndarray, " n"]:
    """One number for an image and a category, both counted from 1."""
    return (image - 1) * problem.num_categories + category - 1


def _best(problem: Problem) -> Bool[np.ndarray, " d"]:
    """Whether a detection is among the LIMIT best of its image."""
    image = problem.detections.image
    order = np.lexsort((-problem.scores, image))
    starts = np.searchsorted(image[order], image[order], side="left")
    best = np.empty(len(order), bool)
    best[order] = np.arange(len(order)) - starts < LIMIT
    return best


def _with(problem: Problem, kept: Bool[np.ndarray, " d"]) -> Problem:
    rows, found = np.flatnonzero(kept), problem.detections
    masks = None if found.masks is None else [found.masks[row] for row in rows.tolist()]
    taken = Regions(
        found.image[rows], found.category[rows], found.boxes[rows], found.areas[rows], masks, found.rows[rows]
    )
    return replace(problem, detections=taken, scores=problem.scores[rows])


def _absorbing(problem: Problem, cells: Int64[np.ndarray, " n"]) -> Problem:
    """With a crowd region as large as the image in each of these cells."""
    image, category = np.divmod(cells, problem.num_categories)
    sizes, truth, more = problem.sizes[image], problem.truth, len(cells)
    boxes = np.concatenate((np.zeros((more, 2)), sizes[:, ::-1]), axis=1)
    masks = None
    if truth.masks is not None:
        masks = [*truth.masks, *(_whole(height, width) for height, width in sizes.tolist())]
    regions = Regions(
        np.concatenate((truth.image, image + 1)),
        np.concatenate((truth.category, category + 1)),
        np.concatenate((truth.boxes, boxes)),
        np.concatenate((truth.areas, sizes.prod(axis=1).astype(np.float64))),
        masks,
        np.concatenate((truth.rows, np.full(more, -1))),
    )
    return replace(
        problem,
        truth=regions,
        crowd=np.concatenate((problem.crowd, np.ones(more, bool))),
        difficult=np.concatenate((problem.difficult, np.zeros(more, bool))),
    )


def _whole(height: int, width: int) -> RunLengths:
    """The mask of the whole image: no background first."""
    return RunLengths(size=[height, width], counts=compress([np.array([0, height * width])])[0])


def _figures(curves: Curves, iou_type: str, frequency: Sequence[str]) -> dict[str, float | None]:
    prefix, precision = "lvis" if iou_type == "bbox" else "lvis-segm", curves.precision[..., -1]
    figures = {f"{prefix}/AP": mean_defined(precision[:, :, :, 0])}
    figures |= {f"{prefix}/AP{iou}": mean_defined(precision[at, :, :, 0]) for iou, at in ((50, 0), (75, 5))}
    figures |= {f"{prefix}/AP{name}": mean_defined(precision[:, :, :, at]) for name, at in SIZES.items()}
    classes = np.array(frequency)[curves.categories - 1]
    return figures | {f"{prefix}/AP{kind}": mean_defined(precision[:, :, classes == kind, 0]) for kind in FREQUENCIES}
