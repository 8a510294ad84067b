"""Selects the regions for the training of the second stage, and matches them to the ground truth."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from resdet.models.losses import Regions
from resdet.ops.boxes import is_nonempty
from resdet.ops.dense import take
from resdet.ops.matching import Matcher
from resdet.ops.sampling import BalancedSampler
from resdet.structures import Proposals, Targets


@torch.no_grad()
def sample_regions(
    proposals: Proposals, targets: Targets, matcher: Matcher, sampler: BalancedSampler, *, background: int
) -> Regions:
    """The sampled regions, positives first; a region without a match has the label `background`.

    The ground-truth boxes are added to the proposals, so that there are positives from the first step on.
    """
    candidates = torch.cat([proposals.boxes, targets.boxes], dim=1)
    real = torch.cat([proposals.valid, targets.valid & ~targets.crowd], dim=1)
    matches = matcher(candidates, targets.boxes, targets.crowd, targets.valid)
    samples = sampler(matches.positive & real, matches.negative & real, targets.seeds + 1)
    matched = take(matches.index, samples.index)
    return Regions(
        boxes=take(candidates, samples.index),
        labels=torch.where(samples.positive, take(targets.labels, matched), background),
        matched=matched,
        matched_boxes=take(targets.boxes, matched),
        valid=samples.valid,
    )


@torch.no_grad()
def matched_again(
    boxes: Float[Tensor, "N R 4"], before: Regions, targets: Targets, matcher: Matcher, *, background: int
) -> Regions:
    """The regions of the next stage of a cascade, matched again after they were moved to `boxes`.

    All regions are kept, because the stage before has already resampled them by moving them (Cai & Vasconcelos 2018,
    section 4.1).
    """
    matches = matcher(boxes, targets.boxes, targets.crowd, targets.valid)
    return Regions(
        boxes=boxes,
        labels=torch.where(matches.positive, take(targets.labels, matches.index), background),
        matched=matches.index,
        matched_boxes=take(targets.boxes, matches.index),
        valid=before.valid & is_nonempty(boxes) & (matches.positive | matches.negative),
    )


def positives_first(regions: Regions, *, background: int) -> Regions:
    """The same regions, with the positive ones first, otherwise in the same order."""
    positive = regions.valid & (regions.labels < background)
    order = positive.int().argsort(dim=1, descending=True, stable=True)
    return Regions(
        boxes=take(regions.boxes, order),
        labels=take(regions.labels, order),
        matched=take(regions.matched, order),
        matched_boxes=take(regions.matched_boxes, order),
        valid=take(regions.valid, order),
    )
