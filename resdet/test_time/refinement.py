"""Box refinement: regions are pooled and classified again at their refined boxes (He et al. 2015, appendix B)."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from resdet.ops.boxes import clip_boxes, is_nonempty
from resdet.ops.dense import of_class, zero_padding
from resdet.structures import Detections, Proposals


def moved(
    proposals: Proposals,
    probabilities: Float[Tensor, "N P K_1"],
    boxes: Float[Tensor, "N P B 4"],
    sizes: Int64[Tensor, "N 2"],
) -> Proposals:
    """Each proposal at the box of its most probable class, within the image: 300 proposals give 300 new ones."""
    own = clip_boxes(of_class(boxes, probabilities[..., :-1].argmax(-1)), sizes)
    valid = proposals.valid & is_nonempty(own)
    return replace(proposals, boxes=zero_padding(own, valid), valid=valid)


def union(first: Detections, *others: Detections) -> Detections:
    """The boxes of all detections, one after the other; masks are not included."""
    both = (first, *others)
    return Detections(
        boxes=torch.cat([each.boxes for each in both], dim=1),
        scores=torch.cat([each.scores for each in both], dim=1),
        labels=torch.cat([each.labels for each in both], dim=1),
        valid=torch.cat([each.valid for each in both], dim=1),
    )
