"""The second stage: regions are pooled, classified and refined (Girshick 2015; Ren et al. 2015)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from resdet.models.losses import RegionLoss, Regions
from resdet.models.second_stage.box_head import BoxHead, BoxPredictor, C5BoxHead
from resdet.models.second_stage.global_context import join_image_vector, with_image_box
from resdet.models.second_stage.mask_head import MaskHead
from resdet.ops.box_coder import BoxCoder
from resdet.ops.boxes import clip_boxes, is_nonempty
from resdet.ops.matching import Matcher
from resdet.ops.nms import batched_nms
from resdet.ops.roi_align import assign_levels
from resdet.ops.sampling import BalancedSampler
from resdet.structures import Detections, Proposals, Targets


@dataclass(frozen=True)
class DetectionLimits:
    """Which detections are reported: above a score, apart from one another, the best so many of an image."""

    score_threshold: float
    nms_iou: float
    detections: int


# RoIAlign or RoIPool with its options filled in: (features, strides, boxes, levels) to regions.
Pooling = Callable[[Sequence[Tensor], Sequence[int | float], Tensor, Tensor], Tensor]


class RoIPooler(nn.Module):
    """Each box is pooled from the level that fits its size (of one level: from that)."""

    def __init__(self, strides: Sequence[int], pooling: Pooling) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.pooling = pooling
        self.finest = strides[0].bit_length() - 1
        self.coarsest = strides[-1].bit_length() - 1

    def forward(
        self, features: Sequence[Float[Tensor, "N C _h _w"]], boxes: Float[Tensor, "N R 4"]
    ) -> Float[Tensor, "N*R C h w"]:
        """`features` may have coarser levels than the pooler uses (P6 serves the RPN alone)."""
        boxes = boxes.nan_to_num()  # of a net that has diverged: the loss shall say so, not an index out of bounds
        levels = assign_levels(boxes, self.finest, self.coarsest) - self.finest
        return self.pooling(features[: len(self.strides)], self.strides, boxes, levels)


class RoIHeads(nn.Module):
    """Pools regions, and classifies and refines them.

    Args:
        pooler: features of boxes.
        box_head: one vector for each region.
        box_predictor: logits and deltas from the vector, or from two of them with `global_context`.
        matcher, sampler: choose the proposals that teach.
        limits: which detections are reported.
        region_loss: what classes and boxes cost.
        global_context: join the vector of the whole image to that of each region (He et al. 2015, appendix B).
        mask_head: masks of regions; None: boxes alone.
        mask_pooler: features of boxes for the mask head; None: what conv5 of the box head makes of a region.
    """

    def __init__(
        self,
        pooler: RoIPooler,
        box_head: BoxHead,
        box_predictor: BoxPredictor,
        *,
        matcher: Matcher,
        sampler: BalancedSampler,
        limits: DetectionLimits,
        region_loss: RegionLoss,
        global_context: bool = False,
        mask_head: MaskHead | None = None,
        mask_pooler: RoIPooler | None = None,
    ) -> None:
        super().__init__()
        self.pooler = pooler
        self.box_head = box_head
        self.box_predictor = box_predictor
        self.matcher = matcher
        self.sampler = sampler
        self.limits = limits
        self.region_loss = region_loss
        self.global_context = global_context
        self.mask_head = mask_head
        self.mask_pooler = mask_pooler
        self.box_coder = BoxCoder((10.0, 10.0, 5.0, 5.0))

    def forward(
        self,
        features: Sequence[Float[Tensor, "N C _h _w"]],
        boxes: Float[Tensor, "N R 4"],
        sizes: Int64[Tensor, "N 2"],
    ) -> tuple[Float[Tensor, "N R K_1"], Float[Tensor, "N R K 4"]]:
        """Class logits (background last) and class-wise deltas of each box."""
        return self.classify(partial(self.pooler, features), boxes, sizes)

    def classify(
        self, pool: Callable[[Tensor], Tensor], boxes: Float[Tensor, "N R 4"], sizes: Int64[Tensor, "N 2"]
    ) -> tuple[Float[Tensor, "N R K_1"], Float[Tensor, "N R K 4"]]:
        """As `forward`, with regions from `pool`: (N, R, 4) boxes to (N * R, C, h, w) features."""
        return self.classify_maps(self.maps(pool, boxes, sizes))

    def maps(
        self, pool: Callable[[Tensor], Tensor], boxes: Float[Tensor, "N R 4"], sizes: Int64[Tensor, "N 2"]
    ) -> Float[Tensor, "N R_1 C h w"]:
        """Pooled regions, or (C4) what conv5 makes of them; with `global_context` the whole image's come first."""
        regions = with_image_box(boxes, sizes) if self.global_context else boxes
        pooled = pool(regions)
        maps = self.box_head.maps(pooled) if isinstance(self.box_head, C5BoxHead) else pooled
        return maps.unflatten(0, regions.shape[:2])

    def classify_maps(
        self, maps: Float[Tensor, "N R_1 C h w"]
    ) -> tuple[Float[Tensor, "N R K_1"], Float[Tensor, "N R K 4"]]:
        vectors = self.box_head(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])
        vectors = join_image_vector(vectors) if self.global_context else vectors
        logits, deltas = self.box_predictor(vectors.flatten(0, 1))
        return logits.unflatten(0, vectors.shape[:2]), deltas.unflatten(0, vectors.shape[:2])

    def losses(
        self,
        features: Sequence[Float[Tensor, "N C _h _w"]],
        proposals: Proposals,
        targets: Targets,
        sizes: Int64[Tensor, "N 2"],
    ) -> dict[str, Float[Tensor, ""]]:
        """`loss_classifier` and `loss_box_reg` over the sampled regions of the batch (Girshick 2015, equation 1), and
        `loss_mask` where there is a mask head.
        """
        regions = self.sample(proposals, targets)
        maps = self.maps(partial(self.pooler, features), regions.boxes, sizes)
        losses = self.region_loss(*self.classify_maps(maps), regions, self.box_coder)
        if self.mask_head is None:
            return losses
        if self.global_context:
            maps = maps[:, 1:]
        first = slice(self.sampler.most_positives)  # the mask head sees no more regions than can be positive
        labels = regions.labels[:, first]
        return losses | self.mask_head.losses(
            partial(self.mask_pooler, features) if self.mask_pooler else lambda _: maps[:, first].flatten(0, 1),
            regions.boxes[:, first],
            labels,
            regions.matched[:, first],
            regions.valid[:, first] & (labels < self.box_predictor.num_classes),
            targets,
        )

    def sample(self, proposals: Proposals, targets: Targets) -> Regions:
        return sample_regions(proposals, targets, self.matcher, self.sampler, background=self.box_predictor.num_classes)

    def predict(
        self, features: Sequence[Float[Tensor, "N C _h _w"]], proposals: Proposals, sizes: Int64[Tensor, "N 2"]
    ) -> Detections:
        logits, deltas = self(features, proposals.boxes, sizes)
        detections = suppressed(self.candidates(logits.softmax(-1), deltas, proposals, sizes), self.limits)
        if self.mask_head is None:
            return detections
        return self.mask_head.predict(partial(self.mask_regions, features), detections)

    def mask_regions(
        self, features: Sequence[Float[Tensor, "N C _h _w"]], boxes: Float[Tensor, "N R 4"]
    ) -> Float[Tensor, "N*R D h w"]:
        """What the mask head works on."""
        if self.mask_pooler is not None:
            return self.mask_pooler(features, boxes)
        assert isinstance(self.box_head, C5BoxHead), "without a pooler of its own a mask head needs a C4's conv5"
        return self.box_head.maps(self.pooler(features, boxes))

    def candidates(
        self,
        probabilities: Float[Tensor, "N P K_1"],
        deltas: Float[Tensor, "N P K 4"],
        proposals: Proposals,
        sizes: Int64[Tensor, "N 2"],
    ) -> Detections:
        """Every class of every proposal, (N, P * K): overlapping and in the order of the proposals."""
        boxes = self.box_coder.decode(deltas, proposals.boxes[:, :, None])
        return class_candidates(
            boxes, probabilities, proposals.valid, sizes, score_threshold=self.limits.score_threshold
        )


@torch.no_grad()
def sample_regions(
    proposals: Proposals, targets: Targets, matcher: Matcher, sampler: BalancedSampler, *, background: int
) -> Regions:
    """Regions to learn from, positives first; label `background` for what matches nothing.

    The ground truth itself joins the proposals, so that there are positives from the first step on.
    """
    candidates = torch.cat([proposals.boxes, targets.boxes], dim=1)
    real = torch.cat([proposals.valid, targets.valid & ~targets.crowd], dim=1)
    matches = matcher(candidates, targets.boxes, targets.crowd, targets.valid)
    samples = sampler(matches.positive & real, matches.negative & real, targets.seeds + 1)
    matched = matches.index.gather(1, samples.index)
    return Regions(
        boxes=candidates.gather(1, samples.index[..., None].expand(-1, -1, 4)),
        labels=torch.where(samples.positive, targets.labels.gather(1, matched), background),
        matched=matched,
        matched_boxes=targets.boxes.gather(1, matched[..., None].expand(-1, -1, 4)),
        valid=samples.valid,
    )


def class_candidates(
    boxes: Float[Tensor, "N P B 4"],
    probabilities: Float[Tensor, "N P K_1"],
    valid: Bool[Tensor, "N P"],
    sizes: Int64[Tensor, "N 2"],
    *,
    score_threshold: float,
) -> Detections:
    """Every class of every proposal, (N, P * K); B boxes a proposal: one for each class, or one for all of them."""
    classes = probabilities.shape[2] - 1
    boxes = clip_boxes(boxes.expand(-1, -1, classes, -1).flatten(1, 2), sizes)
    scores = probabilities[..., :-1].flatten(1)
    real = valid.repeat_interleave(classes, dim=1)
    return Detections(
        boxes=boxes,
        scores=scores,
        labels=torch.arange(classes, device=boxes.device).repeat(valid.shape[1]).expand(boxes.shape[0], -1),
        valid=real & (scores > score_threshold) & is_nonempty(boxes),
    )


def suppressed(candidates: Detections, limits: DetectionLimits) -> Detections:
    """The best `limits.detections` of each image, best first, after NMS within each class."""
    keep, valid = batched_nms(
        candidates.boxes,
        candidates.scores,
        candidates.labels,
        candidates.valid,
        iou_threshold=limits.nms_iou,
        keep=limits.detections,
    )
    return Detections(
        boxes=candidates.boxes.gather(1, keep[..., None].expand(-1, -1, 4)) * valid[..., None],
        scores=candidates.scores.gather(1, keep) * valid,
        labels=candidates.labels.gather(1, keep) * valid,
        valid=valid,
    )
