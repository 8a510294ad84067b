"""Soft-NMS: a box that overlaps a better one loses score instead of being dropped (Bodla et al. 2017)."""

from __future__ import annotations

import torch

from resdet.models.second_stage.detections import DetectionLimits
from resdet.ops.boxes import box_iou
from resdet.ops.dense import take, zero_padding
from resdet.structures import Detections


def softly_suppressed(candidates: Detections, limits: DetectionLimits, *, sigma: float) -> Detections:
    """The best `limits.detections` of each image, best first, with the scores that remain.

    In turn the best remaining candidate is taken, and the score of each other one of its class is multiplied by
    exp(-overlap^2 / sigma) (equation 5, the Gaussian form). Of equal scores the first counts as better. The search ends
    where no score is above `limits.score_threshold`. Scores of one class only fall, so the best of all classes together
    are the best of each; the loop is over detections, not over images.
    """
    boxes = zero_padding(candidates.boxes, candidates.valid)
    scores = zero_padding(candidates.scores, candidates.valid)
    valid, indices, kept = candidates.valid, [], []
    with torch.autocast(boxes.device.type, enabled=False):
        for _ in range(limits.detections):
            rest = torch.where(valid, scores, -torch.inf)
            best = rest.argmax(dim=1, keepdim=True)
            indices.append(best)
            kept.append(rest.gather(1, best))
            overlap = box_iou(take(boxes, best), boxes)[:, 0]
            same = candidates.labels == candidates.labels.gather(1, best)
            scores = torch.where(same, scores * (-overlap.square() / sigma).exp(), scores)
            valid = valid.scatter(1, best, value=False)
    index, remaining = torch.cat(indices, dim=1), torch.cat(kept, dim=1)
    real = remaining > limits.score_threshold
    return Detections(
        boxes=zero_padding(take(boxes, index), real),
        scores=zero_padding(remaining, real),
        labels=zero_padding(take(candidates.labels, index), real),
        valid=real,
    )
