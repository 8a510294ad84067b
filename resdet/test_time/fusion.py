"""Weighted box fusion: overlapping boxes of several views become their mean (Solovyev et al. 2019)."""

from __future__ import annotations

import torch

from resdet.models.second_stage.detections import DetectionLimits
from resdet.ops.boxes import box_iou
from resdet.ops.dense import take, zero_padding
from resdet.structures import Detections


def fused(candidates: Detections, limits: DetectionLimits, *, iou: float, views: int) -> Detections:
    """The best `limits.detections` of each image, best first: means of the boxes of all views, weighted by score.

    From the best box to the worst, each joins the fused box of its class that it overlaps most, if by more than `iou`,
    whose box and score are computed again; otherwise it begins one. In the end a score, the mean of its T boxes', is
    multiplied by min(T, views) / views, so an object that few views see counts less (sections 3 and 4 of the paper).
    The loop is over boxes, not over images.
    """
    order = torch.where(candidates.valid, candidates.scores, -torch.inf).argsort(dim=1, descending=True, stable=True)
    valid = candidates.valid.gather(1, order)
    boxes = zero_padding(take(candidates.boxes, order), valid)
    scores = zero_padding(candidates.scores.gather(1, order), valid)
    labels = zero_padding(candidates.labels.gather(1, order), valid)

    weighted, weights = torch.zeros_like(boxes), torch.zeros_like(scores)  # one slot for each box that may begin one
    members, classes = torch.zeros_like(labels), torch.full_like(labels, -1)
    used = torch.zeros_like(labels[:, :1])
    with torch.autocast(boxes.device.type, enabled=False):
        for number in range(boxes.shape[1]):
            box, score, label, real = (each[:, number : number + 1] for each in (boxes, scores, labels, valid))
            means = weighted / weights.clamp(min=torch.finfo(weights.dtype).tiny)[..., None]
            overlap = torch.where(classes == label, box_iou(box, means)[:, 0], -1.0)
            most, slot = overlap.max(dim=1, keepdim=True)
            joins = most > iou
            slot = torch.where(joins, slot, used)
            used = used + (real & ~joins)
            share = zero_padding(score, real)
            weighted = weighted.scatter_add(1, slot[..., None].expand(-1, -1, 4), box * share[..., None])
            weights = weights.scatter_add(1, slot, share)
            members = members.scatter_add(1, slot, real.long())
            classes = classes.scatter(1, slot, torch.where(real, label, classes.gather(1, slot)))

    total = weights / members.clamp(min=1) * members.clamp(max=views) / views
    best = total.topk(min(limits.detections, total.shape[1]), dim=1)
    means = weighted / weights.clamp(min=torch.finfo(weights.dtype).tiny)[..., None]
    real = (best.values > limits.score_threshold) & (members.gather(1, best.indices) > 0)
    return Detections(
        boxes=zero_padding(take(means, best.indices), real),
        scores=zero_padding(best.values, real),
        labels=zero_padding(classes.gather(1, best.indices), real),
        valid=real,
    )
