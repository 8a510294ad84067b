"""The two stages of one or several detectors, with what He et al. 2015 (appendix B) add at test time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from resdet.errors import UserError
from resdet.inference.ensemble import all_proposals, mean_classifier
from resdet.inference.maxout import maxout_pool
from resdet.inference.refinement import Classify, moved, union
from resdet.inference.views import resized
from resdet.inference.voting import vote
from resdet.models.rcnn import RCNN
from resdet.models.roi_heads import suppressed
from resdet.structures import Batch, Detections, Proposals

Maps = list[Tensor]  # a neck's output for a batch, one map a level


class RegionDetector(nn.Module):
    """Proposes, classifies, refines, suppresses, votes. Without any option it is its single member.

    Args:
        members: detectors of the same classes; more than one are an ensemble. The first has the limits of detections.
        factors: sizes that regions are pooled at, over the size of the batch; two adjacent ones for each region,
            merged by maxout. Proposals come from the batch as it is.
        refinement_iou: look again at the boxes found, and suppress the union at this overlap; None: look once.
        voting_iou: boxes of at least this overlap vote; None: each detection keeps its box.
    """

    def __init__(
        self,
        members: Sequence[RCNN],
        *,
        factors: Sequence[float] = (1.0,),
        refinement_iou: float | None = None,
        voting_iou: float | None = None,
    ) -> None:
        super().__init__()
        self.models = nn.ModuleList(members)
        self.members = tuple(members)  # the same, with their type
        self.heads = tuple(member.roi_heads for member in members)
        self.factors = tuple(factors)
        self.refinement_iou = refinement_iou
        self.voting_iou = voting_iou
        own = self.heads[0].limits
        self.limits = own if refinement_iou is None else replace(own, nms_iou=refinement_iou)

    @torch.no_grad()
    def predict(self, batch: Batch) -> Detections:
        """Detections in pixels of the padded input; masks are those of the members, averaged."""
        maps = [_maps(member, batch) for member in self.members]
        return self._with_masks(maps, self._detect(batch, maps))

    @torch.no_grad()
    def detect(self, batch: Batch) -> Detections:
        """The same without masks."""
        return self._detect(batch, [_maps(member, batch) for member in self.members])

    @torch.no_grad()
    def add_masks(self, batch: Batch, detections: Detections) -> Detections:
        """Masks of given detections, where the members have mask heads."""
        if self.heads[0].mask_head is None:
            return detections
        return self._with_masks([_maps(member, batch) for member in self.members], detections)

    def _detect(self, batch: Batch, maps: Sequence[Maps]) -> Detections:
        proposals = all_proposals([_propose(m, own, batch) for m, own in zip(self.members, maps, strict=True)])
        classify = mean_classifier([self._classifier(m, own, batch) for m, own in zip(self.members, maps, strict=True)])
        candidates = self._candidates(proposals, classify, batch)
        detections = suppressed(candidates, self.limits)
        return detections if self.voting_iou is None else vote(detections, candidates, iou=self.voting_iou)

    def _candidates(self, proposals: Proposals, classify: Classify, batch: Batch) -> Detections:
        """Every class of every proposal; with refinement also of every proposal where the first look put it."""
        heads = self.heads[0]
        probabilities, deltas = classify(proposals.boxes)
        first = heads.candidates(probabilities, deltas, proposals, batch.sizes)
        if self.refinement_iou is None:
            return first
        again = moved(proposals, probabilities, deltas, batch.sizes, heads.box_coder)
        return union(first, heads.candidates(*classify(again.boxes), again, batch.sizes))

    def _classifier(self, member: RCNN, maps: Maps, batch: Batch) -> Classify:
        """The second stage of a member on this batch."""
        scales = [maps if factor == 1 else _maps(member, resized(batch, factor)) for factor in self.factors]
        pool = partial(maxout_pool, member.roi_heads.pooler, scales, self.factors)

        def classify(boxes: Tensor) -> tuple[Tensor, Tensor]:
            logits, deltas = member.roi_heads.classify(pool, boxes, batch.sizes)
            return logits.softmax(-1), deltas

        return classify

    def _with_masks(self, maps: Sequence[Maps], detections: Detections) -> Detections:
        """The mean of the members' masks, from the batch as it is."""
        masks = []
        for heads, own in zip(self.heads, maps, strict=True):
            if heads.mask_head is not None:
                masks.append(heads.mask_head.predict(partial(heads.mask_regions, own), detections).masks)
        if not masks:
            return detections
        if len(masks) < len(self.heads) or len({mask.shape for mask in masks}) > 1:
            raise UserError("the detectors of an ensemble have different masks, or some have none; combine equal ones")
        return replace(detections, masks=torch.stack(masks).mean(0))


def _maps(member: RCNN, batch: Batch) -> Maps:
    return list(member.neck(member.backbone(member.normalized(batch))))


def _propose(member: RCNN, maps: Maps, batch: Batch) -> Proposals:
    return member.rpn.proposals(member.rpn(maps), batch.sizes, member.test_limits)
