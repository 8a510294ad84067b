"""Box voting: a detection's box becomes the mean of all boxes that overlap it."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from resdet.ops.boxes import box_iou
from resdet.ops.dense import zero_padding
from resdet.structures import Detections

CHUNK = 16  # detections at a time: limits memory, does not change the result


def vote(detections: Detections, candidates: Detections, *, iou: float) -> Detections:
    """Each box becomes the mean, weighted by score, of the candidates of its class that overlap it by `iou` or more.

    `candidates` are the boxes before NMS, including the detections; scores do not change (Gidaris & Komodakis 2015,
    equation 1).
    """
    weights = zero_padding(candidates.scores, candidates.valid)
    places = zero_padding(candidates.boxes, candidates.valid)
    boxes = []
    with torch.autocast(detections.boxes.device.type, enabled=False):
        for start in range(0, detections.boxes.shape[1], CHUNK):
            chunk = slice(start, start + CHUNK)
            near = box_iou(detections.boxes[:, chunk], places) >= iou
            same = detections.labels[:, chunk, None] == candidates.labels[:, None]
            boxes.append(_mean(detections.boxes[:, chunk], places, weights[:, None] * (near & same)))
    return replace(detections, boxes=zero_padding(torch.cat(boxes, dim=1), detections.valid))


def _mean(
    own: Float[Tensor, "N d 4"], boxes: Float[Tensor, "N M 4"], weights: Float[Tensor, "N d M"]
) -> Float[Tensor, "N d 4"]:
    """The weighted mean; a box without weight is not changed."""
    total = weights.sum(-1, keepdim=True)
    mean = weights @ boxes / total.clamp(min=torch.finfo(total.dtype).tiny)
    return torch.where(total > 0, mean, own)
