"""Several detectors as one: all their proposals, the mean of their classifiers (He et al. 2015, appendix B)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from resdet.structures import Proposals
from resdet.test_time.refinement import Classify


def all_proposals(proposals: Sequence[Proposals]) -> Proposals:
    """The proposals of all detectors, one detector after the other."""
    return Proposals(
        boxes=torch.cat([each.boxes for each in proposals], dim=1),
        scores=torch.cat([each.scores for each in proposals], dim=1),
        valid=torch.cat([each.valid for each in proposals], dim=1),
    )


def mean_classifier(classifiers: Sequence[Classify]) -> Classify:
    """Probabilities and deltas, averaged. A class-agnostic detector's one set of deltas counts for every class."""

    def classify(boxes: Tensor) -> tuple[Tensor, Tensor]:
        probabilities, deltas = zip(*(classifier(boxes) for classifier in classifiers), strict=True)
        return torch.stack(probabilities).mean(0), torch.stack(torch.broadcast_tensors(*deltas)).mean(0)

    return classify
