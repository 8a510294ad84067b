"""The two stages of one or several detectors, with the test-time parts of He et al. 2015 (appendix B)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resdet.data.batches.collate import SIZE_DIVISORS
from resdet.errors import UserError
from resdet.models.rcnn import RCNN
from resdet.models.second_stage.detections import DetectionLimits, suppressed
from resdet.models.second_stage.roi_heads import RoIHeads
from resdet.models.second_stage.roi_pooler import Pool
from resdet.structures import Batch, Detections, Proposals
from resdet.test_time.ensemble import all_proposals, mean_boxes
from resdet.test_time.maxout import maxout_pool
from resdet.test_time.refinement import moved, union
from resdet.test_time.views import resized
from resdet.test_time.voting import vote

Maps = list[Tensor]  # a neck's output for a batch, one map a level

# From candidates to at most `limits.detections` of them: NMS, or what takes its place.
Suppress = Callable[[Detections, DetectionLimits], Detections]

# From boxes (N, R, 4) and the first stage to use, to class probabilities (N, R, K + 1) and boxes (N, R, B, 4).
Classify = Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Member:
    """A detector and its second stage."""

    model: RCNN
    heads: RoIHeads

    def maps(self, batch: Batch) -> Maps:
        return list(self.model.neck(self.model.backbone(self.model.normalized(batch))))

    def propose(self, maps: Maps, batch: Batch) -> Proposals:
        return self.model.rpn.proposals(self.model.rpn(maps), batch.sizes, self.model.test_limits)


class RegionDetector(nn.Module):
    """Runs proposals, classification, refinement, NMS and voting. Without options the result is that of its single
    member.

    Args:
        members: detectors of the same classes; more than one form an ensemble. The first gives the limits of
            detections.
        factors: sizes at which regions are pooled, relative to the size of the batch; two adjacent ones for each
            region, merged by maxout. Proposals come from the original batch.
        refinement_iou: classify the refined boxes again, and apply NMS to the union with this overlap; None: classify
            once.
        voting_iou: boxes with at least this overlap vote; None: each detection keeps its box.
        suppress: chooses the detections among the candidates, in place of NMS.
        size_divisor: pixels that the sides of resized batches are multiples of.

    Raises:
        UserError: a member is no RCNN, or has no second stage.
    """

    def __init__(
        self,
        members: Sequence[nn.Module],
        *,
        factors: Sequence[float] = (1.0,),
        refinement_iou: float | None = None,
        voting_iou: float | None = None,
        suppress: Suppress = suppressed,
        size_divisor: int = max(SIZE_DIVISORS.values()),
    ) -> None:
        super().__init__()
        self.models = nn.ModuleList(members)
        self.members = tuple(Member(*_second_stage(model)) for model in members)
        self.factors = tuple(factors)
        self.refinement_iou = refinement_iou
        self.voting_iou = voting_iou
        self.suppress = suppress
        self.size_divisor = size_divisor
        own = self.members[0].heads.limits
        self.limits = own if refinement_iou is None else replace(own, nms_iou=refinement_iou)

    @torch.no_grad()
    def predict(self, batch: Batch) -> Detections:
        """Detections in pixels of the padded input; masks are the mean of the members' masks."""
        maps = [member.maps(batch) for member in self.members]
        return self._with_masks(maps, self._detect(batch, maps))

    @torch.no_grad()
    def detect(self, batch: Batch) -> Detections:
        """The same without masks."""
        return self._detect(batch, [member.maps(batch) for member in self.members])

    @torch.no_grad()
    def add_masks(self, batch: Batch, detections: Detections) -> Detections:
        """Masks of given detections, where the members have mask heads."""
        if all(member.heads.mask_head is None for member in self.members):
            return detections
        return self._with_masks([member.maps(batch) for member in self.members], detections)

    def _detect(self, batch: Batch, maps: Sequence[Maps]) -> Detections:
        with_maps = list(zip(self.members, maps, strict=True))
        proposals = all_proposals([member.propose(own, batch) for member, own in with_maps])
        classify = partial(self._classify, [self._pool(member, own, batch) for member, own in with_maps], batch)
        candidates = self._candidates(proposals, classify, batch)
        detections = self.suppress(candidates, self.limits)
        return detections if self.voting_iou is None else vote(detections, candidates, iou=self.voting_iou)

    def _candidates(self, proposals: Proposals, classify: Classify, batch: Batch) -> Detections:
        """Every class of every proposal; with refinement, also of every proposal at its refined box.

        A cascade classifies refined boxes only with its last stage, which was trained on boxes of this quality.
        """
        heads = self.members[0].heads
        probabilities, boxes = classify(proposals.boxes)
        first = heads.candidates(probabilities, boxes, proposals, batch.sizes)
        if self.refinement_iou is None:
            return first
        again = moved(proposals, probabilities, boxes, batch.sizes)
        return union(first, heads.candidates(*classify(again.boxes, first=-1), again, batch.sizes))

    def _classify(
        self, pools: Sequence[Pool], batch: Batch, boxes: Float[Tensor, "N R 4"], *, first: int = 0
    ) -> tuple[Float[Tensor, "N R K_1"], Float[Tensor, "N R B 4"]]:
        """The mean of the outputs of the members' second stages for boxes, each by its stages from number
        `first` on.
        """
        with_pools = zip(self.members, pools, strict=True)
        found = [member.heads.classify(pool, boxes, batch.sizes, first=first) for member, pool in with_pools]
        probabilities, places = zip(*found, strict=True)
        return torch.stack(probabilities).mean(0), mean_boxes(places)

    def _pool(self, member: Member, maps: Maps, batch: Batch) -> Pool:
        """The regions of this batch for the second stage of a member."""
        scales = [
            maps if factor == 1 else member.maps(resized(batch, factor, divisor=self.size_divisor))
            for factor in self.factors
        ]
        return partial(maxout_pool, member.heads.pooler, scales, self.factors)

    def _with_masks(self, maps: Sequence[Maps], detections: Detections) -> Detections:
        """The mean of the members' masks, from the original batch."""
        masks = []
        for member, own in zip(self.members, maps, strict=True):
            if (head := member.heads.mask_head) is not None:
                masks.append(head.predict(partial(member.heads.mask_regions, own), detections).masks)
        if not masks:
            return detections
        if len(masks) < len(self.members) or len({mask.shape for mask in masks}) > 1:
            raise UserError("the detectors of an ensemble have different masks, or some have none; combine equal ones")
        return replace(detections, masks=torch.stack(masks).mean(0))


def _second_stage(model: nn.Module) -> tuple[RCNN, RoIHeads]:
    if not isinstance(model, RCNN) or model.roi_heads is None:
        what = "has none (model.box_head=null)" if isinstance(model, RCNN) else f"is a {type(model).__name__}"
        raise UserError(f"the parts of `test` and ensembles are for detectors with a second stage; this one {what}")
    return model, model.roi_heads
