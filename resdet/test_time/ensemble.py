"""Combines several detectors: all their proposals, and the mean of their class probabilities (He et al. 2015, appendix
B).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from resdet.structures import Proposals


def all_proposals(proposals: Sequence[Proposals]) -> Proposals:
    """The proposals of all detectors, one detector after the other."""
    return Proposals(
        boxes=torch.cat([each.boxes for each in proposals], dim=1),
        scores=torch.cat([each.scores for each in proposals], dim=1),
        valid=torch.cat([each.valid for each in proposals], dim=1),
    )


def mean_boxes(boxes: Sequence[Float[Tensor, "N R _ 4"]]) -> Float[Tensor, "N R B 4"]:
    """The boxes with the mean centre and the geometric mean of the sides, equal to the result of the mean deltas.

    Deltas from one region are shifts of its centre and logarithms of scales, so their mean does not depend on that
    region: detectors may have different box coders and different numbers of stages. A class-agnostic box of a detector
    is used for every class.
    """
    if len(boxes) == 1:
        return boxes[0]
    stacked = torch.stack(torch.broadcast_tensors(*boxes))
    centre = (stacked[..., :2] + stacked[..., 2:]).mean(0) / 2
    half = (stacked[..., 2:] - stacked[..., :2]).clamp(min=0).log().mean(0).exp() / 2
    return torch.cat([centre - half, centre + half], dim=-1)
