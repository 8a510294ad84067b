"""The second stage: regions are pooled, classified and refined (Girshick 2015; Ren et al. 2015)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from resdet.models.box_head import BoxHead, BoxPredictor
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
Pooling = Callable[[Sequence[Tensor], Sequence[int], Tensor, Tensor], Tensor]


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
        levels = assign_levels(boxes, self.finest, self.coarsest) - self.finest
        return self.pooling(features[: len(self.strides)], self.strides, boxes, levels)


class RoIHeads(nn.Module):
    """Pools regions, and classifies and refines them.

    Args:
        pooler: features of boxes.
        box_head: one vector for each region.
        box_predictor: logits and deltas from the vector.
        matcher, sampler: choose the proposals that teach.
        limits: which detections are reported.
        smooth_l1_beta: where the box loss turns from quadratic to linear, in units of a delta.
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
        smooth_l1_beta: float,
    ) -> None:
        super().__init__()
        self.pooler = pooler
        self.box_head = box_head
        self.box_predictor = box_predictor
        self.matcher = matcher
        self.sampler = sampler
        self.limits = limits
        self.smooth_l1_beta = smooth_l1_beta
        self.box_coder = BoxCoder((10.0, 10.0, 5.0, 5.0))

    def forward(
        self, features: Sequence[Float[Tensor, "N C _h _w"]], boxes: Float[Tensor, "N R 4"]
    ) -> tuple[Float[Tensor, "N R K_1"], Float[Tensor, "N R K 4"]]:
        """Class logits (background last) and class-wise deltas of each box."""
        logits, deltas = self.box_predictor(self.box_head(self.pooler(features, boxes)))
        return logits.unflatten(0, boxes.shape[:2]), deltas.unflatten(0, boxes.shape[:2])

    def losses(
        self, features: Sequence[Float[Tensor, "N C _h _w"]], proposals: Proposals, targets: Targets
    ) -> dict[str, Float[Tensor, ""]]:
        """`loss_classifier` and `loss_box_reg` over the sampled regions of the batch (Girshick 2015, equation 1)."""
        boxes, labels, matched, valid = self.sample(proposals, targets)
        logits, deltas = self(features, boxes)
        count = valid.sum().clamp(min=1)

        classification = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")

        positive = valid & (labels < self.box_predictor.num_classes)
        own = labels.clamp(max=self.box_predictor.num_classes - 1)[..., None, None].expand(-1, -1, 1, 4)
        deltas = deltas.gather(2, own).squeeze(2)
        wanted = self.box_coder.encode(matched, boxes)
        regression = F.smooth_l1_loss(deltas, wanted, beta=self.smooth_l1_beta, reduction="none").sum(-1)
        return {
            "loss_classifier": (classification * valid.flatten()).sum() / count,
            "loss_box_reg": (regression * positive).sum() / count,
        }

    @torch.no_grad()
    def sample(
        self, proposals: Proposals, targets: Targets
    ) -> tuple[Tensor, Int64[Tensor, "N R"], Float[Tensor, "N R 4"], Tensor]:
        """Regions to learn from: boxes, labels (background is K), their ground-truth boxes, and which are real.

        The ground truth itself joins the proposals, so that there are positives from the first step on.
        """
        candidates = torch.cat([proposals.boxes, targets.boxes], dim=1)
        real = torch.cat([proposals.valid, targets.valid & ~targets.crowd], dim=1)
        matches = self.matcher(candidates, targets.boxes, targets.crowd, targets.valid)
        samples = self.sampler(matches.positive & real, matches.negative & real, targets.seeds + 1)
        boxes = candidates.gather(1, samples.index[..., None].expand(-1, -1, 4))
        matched = matches.index.gather(1, samples.index)
        labels = torch.where(samples.positive, targets.labels.gather(1, matched), self.box_predictor.num_classes)
        return boxes, labels, targets.boxes.gather(1, matched[..., None].expand(-1, -1, 4)), samples.valid

    def predict(
        self, features: Sequence[Float[Tensor, "N C _h _w"]], proposals: Proposals, sizes: Int64[Tensor, "N 2"]
    ) -> Detections:
        logits, deltas = self(features, proposals.boxes)
        return self.detections(logits, deltas, proposals, sizes)

    def detections(
        self,
        logits: Float[Tensor, "N P K_1"],
        deltas: Float[Tensor, "N P K 4"],
        proposals: Proposals,
        sizes: Int64[Tensor, "N 2"],
    ) -> Detections:
        """Every class of every proposal is a candidate; NMS within each class, the best of all classes are kept."""
        classes = deltas.shape[2]
        boxes = self.box_coder.decode(deltas, proposals.boxes[:, :, None]).flatten(1, 2)  # (N, P * K, 4)
        boxes = clip_boxes(boxes, sizes)
        scores = logits.softmax(-1)[..., :-1].flatten(1)
        labels = torch.arange(classes, device=boxes.device).repeat(deltas.shape[1]).expand(len(boxes), -1)
        real = proposals.valid.repeat_interleave(classes, dim=1)
        keep, valid = batched_nms(
            boxes,
            scores,
            labels,
            real & (scores > self.limits.score_threshold) & is_nonempty(boxes),
            iou_threshold=self.limits.nms_iou,
            keep=self.limits.detections,
        )
        return Detections(
            boxes=boxes.gather(1, keep[..., None].expand(-1, -1, 4)) * valid[..., None],
            scores=scores.gather(1, keep) * valid,
            labels=labels.gather(1, keep) * valid,
            valid=valid,
        )
