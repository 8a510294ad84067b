"""Cascade R-CNN: box heads in sequence, each on the boxes of the one before (Cai & Vasconcelos 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from resdet.models.losses import RegionLoss, Regions
from resdet.models.second_stage.box_head import BoxHead, BoxPredictor
from resdet.models.second_stage.mask_head import MaskHead
from resdet.models.second_stage.roi_heads import (
    DetectionLimits,
    RoIPooler,
    class_candidates,
    sample_regions,
    suppressed,
)
from resdet.ops.box_coder import BoxCoder
from resdet.ops.boxes import clip_boxes, is_nonempty
from resdet.ops.matching import Matcher
from resdet.ops.sampling import BalancedSampler
from resdet.structures import Detections, Proposals, Targets


class CascadeRoIHeads(nn.Module):
    """Each stage pools the boxes of the stage before, classifies and refines them; its foreground overlaps more.

    The arguments with one part for each stage are as long as one another. A mask head works on the boxes of the last
    stage.

    Args:
        pooler: features of boxes, for all stages.
        box_heads: of each stage, one vector for each region.
        box_predictors: of each stage, logits and class-agnostic deltas from the vector.
        box_coders: of each stage; later ones weigh deltas more, for there is less left to move.
        matchers: of each stage, what a region shows.
        sampler: chooses the proposals that teach, once for all stages.
        limits: which detections are reported.
        region_loss: what classes and boxes cost in each stage.
        mask_head, mask_pooler: masks of regions, and features of boxes for them; None: boxes alone.
    """

    def __init__(
        self,
        pooler: RoIPooler,
        box_heads: Sequence[BoxHead],
        box_predictors: Sequence[BoxPredictor],
        *,
        box_coders: Sequence[BoxCoder],
        matchers: Sequence[Matcher],
        sampler: BalancedSampler,
        limits: DetectionLimits,
        region_loss: RegionLoss,
        mask_head: MaskHead | None = None,
        mask_pooler: RoIPooler | None = None,
    ) -> None:
        super().__init__()
        self.pooler = pooler
        self.box_head = nn.ModuleList(box_heads)
        self.box_predictor = nn.ModuleList(box_predictors)
        self.box_coders = tuple(box_coders)
        self.matchers = tuple(matchers)
        self.sampler = sampler
        self.limits = limits
        self.region_loss = region_loss
        self.mask_head = mask_head
        self.mask_pooler = mask_pooler
        self.stages = len(box_heads)
        self.num_classes = box_predictors[0].num_classes

    def forward(
        self, stage: int, features: Sequence[Float[Tensor, "N C _h _w"]], boxes: Float[Tensor, "N R 4"]
    ) -> tuple[Float[Tensor, "N R K_1"], Float[Tensor, "N R 1 4"]]:
        """Class logits (background last) and deltas of each box in a stage."""
        pooled = self.pooler(features, boxes)
        if pooled.requires_grad:  # the stages share the maps, and together teach them as much as one head does
            pooled = scaled_gradient(pooled, 1 / self.stages)
        logits, deltas = self.box_predictor[stage](self.box_head[stage](pooled))
        return logits.unflatten(0, boxes.shape[:2]), deltas.unflatten(0, boxes.shape[:2])

    def losses(
        self,
        features: Sequence[Float[Tensor, "N C _h _w"]],
        proposals: Proposals,
        targets: Targets,
        sizes: Int64[Tensor, "N 2"],
    ) -> dict[str, Float[Tensor, ""]]:
        """`loss_classifier_stage0`, `loss_box_reg_stage0` and so on, and `loss_mask` where there is a mask head."""
        regions = sample_regions(proposals, targets, self.matchers[0], self.sampler, background=self.num_classes)
        losses: dict[str, Tensor] = {}
        for stage in range(self.stages):
            logits, deltas = self(stage, features, regions.boxes)
            of_stage = self.region_loss(logits, deltas, regions, self.box_coders[stage])
            losses |= {f"{name}_stage{stage}": loss for name, loss in of_stage.items()}
            boxes = self.refined(stage, deltas.detach(), regions.boxes, sizes)
            regions = self.matched_again(min(stage + 1, self.stages - 1), boxes, regions, targets)
        return losses | self.mask_losses(features, regions, targets)

    def predict(
        self, features: Sequence[Float[Tensor, "N C _h _w"]], proposals: Proposals, sizes: Int64[Tensor, "N 2"]
    ) -> Detections:
        """The boxes of the last stage, with the mean of the stages' class probabilities."""
        boxes, probabilities = proposals.boxes, []
        for stage in range(self.stages):
            logits, deltas = self(stage, features, boxes)
            probabilities.append(logits.softmax(-1))
            boxes = self.refined(stage, deltas, boxes, sizes)
        mean = torch.stack(probabilities).mean(0)
        threshold = self.limits.score_threshold
        candidates = class_candidates(boxes[:, :, None], mean, proposals.valid, sizes, score_threshold=threshold)
        detections = suppressed(candidates, self.limits)
        if self.mask_head is None or self.mask_pooler is None:
            return detections
        return self.mask_head.predict(partial(self.mask_pooler, features), detections)

    def refined(
        self,
        stage: int,
        deltas: Float[Tensor, "N R 1 4"],
        boxes: Float[Tensor, "N R 4"],
        sizes: Int64[Tensor, "N 2"],
    ) -> Float[Tensor, "N R 4"]:
        """The boxes that a stage makes of those of the stage before, within the image."""
        return clip_boxes(self.box_coders[stage].decode(deltas.squeeze(2), boxes), sizes)

    @torch.no_grad()
    def matched_again(self, stage: int, boxes: Float[Tensor, "N R 4"], before: Regions, targets: Targets) -> Regions:
        """What the refined boxes show to a stage. All of them stay: the stage before has resampled (section 4.1)."""
        matches = self.matchers[stage](boxes, targets.boxes, targets.crowd, targets.valid)
        labels = torch.where(matches.positive, targets.labels.gather(1, matches.index), self.num_classes)
        matched_boxes = targets.boxes.gather(1, matches.index[..., None].expand(-1, -1, 4))
        valid = before.valid & is_nonempty(boxes) & (matches.positive | matches.negative)
        return Regions(boxes, labels, matches.index, matched_boxes, valid)

    def mask_losses(
        self, features: Sequence[Float[Tensor, "N C _h _w"]], regions: Regions, targets: Targets
    ) -> dict[str, Float[Tensor, ""]]:
        """`loss_mask` where there is a mask head, over as many of the positive regions as the sampler keeps."""
        if self.mask_head is None or self.mask_pooler is None:
            return {}
        positive = regions.valid & (regions.labels < self.num_classes)
        first = positive.int().argsort(dim=1, descending=True, stable=True)[:, : self.sampler.most_positives]
        return self.mask_head.losses(
            partial(self.mask_pooler, features),
            regions.boxes.gather(1, first[..., None].expand(-1, -1, 4)),
            regions.labels.gather(1, first),
            regions.matched.gather(1, first),
            positive.gather(1, first),
            targets,
        )


def scaled_gradient(x: Float[Tensor, "*S"], scale: float) -> Float[Tensor, "*S"]:
    """x itself, whose gradient is `scale` times as large."""
    constant = x.detach()
    return constant + (x - constant) * scale
