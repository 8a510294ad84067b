"""Computes the detections of an image from the classes and boxes of its regions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from resdet.ops.boxes import clip_boxes, is_nonempty
from resdet.ops.dense import take, zero_padding
from resdet.ops.nms import batched_nms
from resdet.structures import Detections


@dataclass(frozen=True)
class DetectionLimits:
    """Limits of the reported detections: the least score, the largest overlap, and the number per image."""

    score_threshold: float
    nms_iou: float
    detections: int


def class_candidates(
    boxes: Float[Tensor, "N P B 4"],
    probabilities: Float[Tensor, "N P K_1"],
    valid: Bool[Tensor, "N P"],
    sizes: Int64[Tensor, "N 2"],
    *,
    score_threshold: float,
) -> Detections:
    """Every class of every proposal, (N, P * K), overlapping and in the order of the proposals.

    B is the number of boxes per proposal: one for each class, or one for all classes. The values of an entry that is
    not `valid` are not changed here.
    """
    classes = probabilities.shape[2] - 1
    boxes = clip_boxes(boxes.expand(-1, -1, classes, -1).flatten(1, 2), sizes)
    scores = probabilities[..., :-1].flatten(1)
    real = valid.repeat_interleave(classes, dim=1)
    return Detections(
        boxes=boxes,
        scores=scores,
        labels=torch.arange(classes, device=boxes.device).repeat(valid.shape[1]).expand(boxes.shape[0], -1),
        valid=real & (scores > score_threshold) & is_nonempty(boxes),
    )


def suppressed(candidates: Detections, limits: DetectionLimits) -> Detections:
    """The best `limits.detections` of each image, best first, after NMS within each class."""
    keep, valid = batched_nms(
        candidates.boxes,
        candidates.scores,
        candidates.labels,
        candidates.valid,
        iou_threshold=limits.nms_iou,
        keep=limits.detections,
    )
    return Detections(
        boxes=zero_padding(take(candidates.boxes, keep), valid),
        scores=zero_padding(take(candidates.scores, keep), valid),
        labels=zero_padding(take(candidates.labels, keep), valid),
        valid=valid,
    )
