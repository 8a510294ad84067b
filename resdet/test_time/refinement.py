"""Box refinement: regions are looked at again where the first look put them (He et al. 2015, appendix B)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from resdet.ops.box_coder import BoxCoder
from resdet.ops.boxes import clip_boxes, is_nonempty
from resdet.structures import Detections, Proposals

# (N, R, 4) boxes to class probabilities (N, R, K + 1) and deltas (N, R, B, 4), B being K or 1.
Classify = Callable[[Tensor], tuple[Tensor, Tensor]]


def moved(
    proposals: Proposals,
    probabilities: Float[Tensor, "N P K_1"],
    deltas: Float[Tensor, "N P B 4"],
    sizes: Int64[Tensor, "N 2"],
    coder: BoxCoder,
) -> Proposals:
    """Each proposal where the deltas of its most probable class put it: 300 proposals give 300 new ones."""
    best = probabilities[..., :-1].argmax(-1).clamp(max=deltas.shape[2] - 1)
    own = deltas.gather(2, best[..., None, None].expand(-1, -1, 1, 4)).squeeze(2)
    boxes = clip_boxes(coder.decode(own, proposals.boxes), sizes)
    valid = proposals.valid & is_nonempty(boxes)
    return replace(proposals, boxes=boxes * valid[..., None], valid=valid)


def union(first: Detections, *others: Detections) -> Detections:
    """The boxes of all, one after the other; masks are left behind."""
    both = (first, *others)
    return Detections(
        boxes=torch.cat([each.boxes for each in both], dim=1),
        scores=torch.cat([each.scores for each in both], dim=1),
        labels=torch.cat([each.labels for each in both], dim=1),
        valid=torch.cat([each.valid for each in both], dim=1),
    )
