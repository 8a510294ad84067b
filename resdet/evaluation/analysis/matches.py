"""Matches detections and objects as COCO does, for all images, IoU thresholds and sizes at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from resdet.coco.segmentation import coco_mask
from resdet.evaluation.backends import Problem
from resdet.ops.array_boxes import paired_iou

THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREAS = np.array(
    [[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]]
)  # all, small, medium, large, as cocoapi has them
NONE = -1  # no object
PAIRS_AT_ONCE = 2_000_000  # limits the memory


@dataclass(frozen=True)
class Pairs:
    """p overlapping pairs of a detection and an object of the same image, of any classes, in the order of the
    detections.

    The overlap with a crowd region is the fraction of the detection that lies in it.
    """

    detection: Int64[np.ndarray, " p"]
    truth: Int64[np.ndarray, " p"]
    iou: Float64[np.ndarray, " p"]

    def where(self, chosen: Bool[np.ndarray, " p"]) -> Pairs:
        return Pairs(self.detection[chosen], self.truth[chosen], self.iou[chosen])


@dataclass(frozen=True)
class Matches:
    """D detections against G objects, at T IoU thresholds and for S sizes of object."""

    truth: Int32[np.ndarray, "D T S"]  # the matched object, or NONE
    # neither correct nor wrong: on a crowd region, of another size, or not among the best 100
    ignored: Bool[np.ndarray, "D T S"]
    truth_ignored: Bool[np.ndarray, "G S"]  # not to be found: crowd, or of another size

    @cached_property
    def right(self) -> Bool[np.ndarray, "D T S"]:
        return (self.truth != NONE) & ~self.ignored


def overlapping_pairs(problem: Problem, *, least: float) -> Pairs:
    """All pairs within an image, of the same class or not, whose IoU is `least` (above 0) or more."""
    parts = [part.where(part.iou >= least) for part in _pairs(problem)]
    if not parts:
        empty = np.zeros(0, dtype=np.int64)
        return Pairs(empty, empty, np.zeros(0))
    columns = zip(*((part.detection, part.truth, part.iou) for part in parts), strict=True)
    detection, truth, iou = (np.concatenate(column) for column in columns)
    return Pairs(detection, truth, iou)


def match(problem: Problem, pairs: Pairs) -> Matches:
    """COCO's matching (cocoeval.py, evaluateImg), from all pairs with IoU .5 or more.

    In the order of score, each detection takes the free object of its class with the largest overlap; it takes an
    ignored object only if no other is left. A crowd region can be taken by any number of detections.
    """
    truth, found = problem.truth, problem.detections
    truth_ignored = problem.crowd[:, None] | _out_of_range(truth.areas)
    group = found.image * (problem.num_categories + 1) + found.category
    beyond = _rank(group) >= problem.max_detections[-1]
    same_class = found.category[pairs.detection] == truth.category[pairs.truth]
    matched = greedy(
        pairs.where(same_class & ~beyond[pairs.detection]),
        group=group,
        priority=np.arange(len(found)),
        thresholds=THRESHOLDS,
        ignored=truth_ignored,
        shared=problem.crowd,
    )
    on_ignored = np.zeros_like(matched, dtype=bool)
    for size in range(len(AREAS)):
        objects = matched[:, :, size]
        on_ignored[:, :, size] = (objects != NONE) & truth_ignored[objects, size] if len(truth) else False
    stray = (matched == NONE) & _out_of_range(found.areas)[:, None, :]
    return Matches(matched, on_ignored | stray | beyond[:, None, None], truth_ignored)


def greedy(
    pairs: Pairs,
    *,
    group: Int64[np.ndarray, " D"],
    priority: Int64[np.ndarray, " D"],
    thresholds: Float64[np.ndarray, " T"],
    ignored: Bool[np.ndarray, "G S"],
    shared: Bool[np.ndarray, " G"],
) -> Int32[np.ndarray, "D T S"]:
    """The object that each detection takes, or NONE. Detections of one group compete; the lowest `priority` is first.

    All groups are processed in parallel: each turn handles the next detection of every group. If overlaps are equal,
    the later object is taken.
    """
    matched = np.full((len(group), len(thresholds), ignored.shape[1]), NONE, dtype=np.int32)
    free = np.ones((len(ignored), len(thresholds), ignored.shape[1]), dtype=bool)
    pairs = pairs.where(pairs.iou >= thresholds.min())
    turn = _turns(pairs, group, priority)
    order = np.lexsort((pairs.truth, pairs.iou, pairs.detection, turn))
    ends = np.searchsorted(turn[order], np.arange(turn.max(initial=-1) + 1), side="right")
    for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=False):
        now = order[start:end]
        detection, objects = pairs.detection[now], pairs.truth[now]
        eligible = (free[objects] | shared[objects, None, None]) & (pairs.iou[now, None] >= thresholds)[..., None]
        # The last pair of a detection is the best; an object that counts is preferred to any ignored one.
        value = (np.arange(1, len(now) + 1)[:, None] + len(now) * ~ignored[objects])[:, None, :] * eligible
        first = np.flatnonzero(np.diff(detection, prepend=NONE))
        best = np.maximum.reduceat(value, first, axis=0)
        taken = np.where(best > 0, objects[(best - 1) % len(now)], NONE)
        matched[detection[first]] = taken
        _, threshold, size = hit = np.nonzero(taken != NONE)
        free[taken[hit], threshold, size] = False
    return matched


def _turns(pairs: Pairs, group: Int64[np.ndarray, " D"], priority: Int64[np.ndarray, " D"]) -> Int64[np.ndarray, " p"]:
    """The position of each pair's detection in its group, among the detections that have a pair."""
    detections = np.unique(pairs.detection)
    order = detections[np.lexsort((priority[detections], group[detections]))]
    turn = np.zeros(len(group), dtype=np.int64)
    turn[order] = _rank(group[order])
    return turn[pairs.detection]


def _rank(group: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """The position of each entry within its group, from 0; entries of a group are adjacent."""
    starts = np.flatnonzero(np.diff(group, prepend=group[:1] - 1))
    return np.arange(len(group)) - np.repeat(starts, np.diff(starts, append=len(group)))


def _out_of_range(areas: Float64[np.ndarray, " n"]) -> Bool[np.ndarray, "n S"]:
    return (areas[:, None] < AREAS[:, 0]) | (areas[:, None] > AREAS[:, 1])


def _pairs(problem: Problem) -> Iterator[Pairs]:
    """Every pair within an image, in portions; detections are sorted by image."""
    found, truth = problem.detections, problem.truth
    objects = np.argsort(truth.image, kind="stable")
    first = np.searchsorted(truth.image[objects], found.image, side="left")
    count = np.searchsorted(truth.image[objects], found.image, side="right") - first
    portion = np.cumsum(count) // PAIRS_AT_ONCE
    if problem.iou_type == "segm":
        portion = found.image
    for rows in np.split(np.arange(len(found)), np.flatnonzero(np.diff(portion)) + 1):
        detection = np.repeat(rows, count[rows])
        if not len(detection):
            continue
        place = np.arange(len(detection)) - np.repeat(np.cumsum(count[rows]) - count[rows], count[rows])
        candidate = objects[np.repeat(first[rows], count[rows]) + place]
        overlap = _mask_iou if problem.iou_type == "segm" else _box_iou
        yield Pairs(detection, candidate, overlap(problem, detection, candidate))


def _box_iou(
    problem: Problem, detection: Int64[np.ndarray, " p"], candidate: Int64[np.ndarray, " p"]
) -> Float64[np.ndarray, " p"]:
    crowd = problem.crowd[candidate]
    return paired_iou(problem.detections.boxes[detection], problem.truth.boxes[candidate], crowd)


def _mask_iou(
    problem: Problem, detection: Int64[np.ndarray, " p"], candidate: Int64[np.ndarray, " p"]
) -> Float64[np.ndarray, " p"]:
    """The mask IoU of every detection with every object of one image."""
    found, truth = problem.detections.masks, problem.truth.masks
    assert found is not None
    assert truth is not None
    rows, objects = np.unique(detection).tolist(), candidate[detection == detection[0]].tolist()
    crowd = problem.crowd[objects].astype(np.uint8).tolist()
    iou: Float64[np.ndarray, "d g"] = coco_mask.iou([found[i] for i in rows], [truth[i] for i in objects], crowd)
    return np.ascontiguousarray(iou).reshape(-1)
