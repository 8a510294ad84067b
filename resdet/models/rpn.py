"""Region Proposal Network (Ren et al. 2015, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from resdet.models.losses import BoxLoss, MeanLoss
from resdet.ops.anchors import cell_anchors, grid_anchors
from resdet.ops.box_coder import BoxCoder
from resdet.ops.boxes import clip_boxes, is_nonempty
from resdet.ops.dense import take, zero_padding
from resdet.ops.matching import Matcher, Matches
from resdet.ops.nms import batched_nms
from resdet.ops.sampling import BalancedSampler
from resdet.structures import Detections, Proposals, Targets


@dataclass(frozen=True)
class ProposalLimits:
    """Limits: candidates per level before NMS, proposals per image after NMS."""

    pre_nms: int
    proposals: int


@dataclass(frozen=True)
class RPNOutput:
    """Objectness logits and box deltas of every anchor, level by level; `level_sizes` are the numbers of anchors per
    level.
    """

    logits: Float[Tensor, "N A"]
    deltas: Float[Tensor, "N A 4"]
    anchors: Float[Tensor, "A 4"]
    level_sizes: tuple[int, ...]


class AnchorGenerator(nn.Module):
    """Cell anchors of each level, placed at every cell of feature maps of any size."""

    def __init__(
        self, sizes: Sequence[Sequence[float]], ratios: Sequence[float], strides: Sequence[int], *, rounded: bool
    ) -> None:
        super().__init__()
        if len(sizes) != len(strides):
            raise ValueError(f"{len(sizes)} levels of anchor sizes for {len(strides)} feature levels")
        counts = {len(level_sizes) * len(ratios) for level_sizes in sizes}
        if len(counts) != 1 or 0 in counts:
            raise ValueError(f"anchor sizes {sizes} by ratios {ratios}: each level needs as many, and one at least")
        self.strides = tuple(strides)
        (self.per_cell,) = counts
        for level, level_sizes in enumerate(sizes):
            self.register_buffer(f"cell{level}", cell_anchors(level_sizes, ratios, rounded=rounded), persistent=False)

    def forward(self, features: Sequence[Float[Tensor, "N C _h _w"]]) -> list[Float[Tensor, "_a 4"]]:
        return [
            grid_anchors(self.get_buffer(f"cell{level}"), feature.shape[2], feature.shape[3], stride)
            for level, (feature, stride) in enumerate(zip(features, self.strides, strict=True))
        ]


class RPNHead(nn.Module):
    """3x3 convolutions (one in the paper), then 1x1 for objectness and deltas; shared by all levels."""

    def __init__(self, channels: int, anchors_per_cell: int, *, convs: int = 1) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True)) for _ in range(convs))
        )
        self.cls_logits = nn.Conv2d(channels, anchors_per_cell, 1)
        self.bbox_pred = nn.Conv2d(channels, anchors_per_cell * 4, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, feature: Float[Tensor, "N C h w"]) -> tuple[Float[Tensor, "N A"], Float[Tensor, "N A 4"]]:
        hidden = self.conv(feature)
        logits = self.cls_logits(hidden).permute(0, 2, 3, 1).flatten(1)
        deltas = self.bbox_pred(hidden).permute(0, 2, 3, 1).reshape(feature.shape[0], -1, 4)
        return logits, deltas


class RPN(nn.Module):
    """Scores and refines anchors; proposals are the best of them after NMS.

    Args:
        head: gives logits and deltas for one level.
        anchor_generator: gives the anchors of all levels.
        matcher, sampler: select the anchors that contribute to the loss.
        nms_iou: proposals of one level overlap less than this.
        box_loss, box_loss_weight: the loss of an anchor's deltas, and a factor on it.
        cross_boundary: pixels by which an anchor that contributes to the loss may cross the border of its image (Ren et
            al. 2015, section 3.3: 0); None: any number.
    """

    def __init__(
        self,
        head: RPNHead,
        anchor_generator: AnchorGenerator,
        *,
        matcher: Matcher,
        sampler: BalancedSampler,
        nms_iou: float,
        box_loss: BoxLoss,
        box_loss_weight: float = 1.0,
        cross_boundary: float | None = None,
    ) -> None:
        super().__init__()
        self.head = head
        self.anchor_generator = anchor_generator
        self.matcher = matcher
        self.sampler = sampler
        self.box_coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
        self.nms_iou = nms_iou
        self.box_loss = box_loss
        self.box_loss_weight = box_loss_weight
        self.cross_boundary = cross_boundary

    def forward(self, features: Sequence[Float[Tensor, "N C _h _w"]]) -> RPNOutput:
        logits, deltas = zip(*(self.head(feature) for feature in features), strict=True)
        return RPNOutput(
            logits=torch.cat(logits, dim=1).float(),
            deltas=torch.cat(deltas, dim=1).float(),
            anchors=self.anchors(features),
            level_sizes=tuple(level.shape[1] for level in logits),
        )

    def anchors(self, features: Sequence[Float[Tensor, "N C _h _w"]]) -> Float[Tensor, "A 4"]:
        """The anchors of the output's entries."""
        return torch.cat(self.anchor_generator(features))

    @torch.no_grad()
    def detections(self, output: RPNOutput, sizes: Int64[Tensor, "N 2"], limits: ProposalLimits) -> Detections:
        """The proposals as the detections of a detector with the single class `object`."""
        return as_detections(self.proposals(output, sizes, limits))

    @torch.no_grad()
    def proposals(self, output: RPNOutput, sizes: Int64[Tensor, "N 2"], limits: ProposalLimits) -> Proposals:
        """The best `limits.proposals` boxes of each image over all levels, clipped to the image."""
        best, levels = [], []
        start = 0
        for level, count in enumerate(output.level_sizes):
            kept = torch.sym_min(limits.pre_nms, count)  # a number, or a symbol where the size of images is dynamic
            best.append(output.logits[:, start : start + count].topk(kept).indices + start)
            levels.append(best[-1].new_full((kept,), level))
            start += count
        index = torch.cat(best, dim=1)
        scores, deltas = take(output.logits, index), take(output.deltas, index)
        boxes = clip_boxes(self.box_coder.decode(deltas, output.anchors[index]), sizes)
        keep, valid = batched_nms(
            boxes,
            scores,
            torch.cat(levels).expand(boxes.shape[0], -1),
            is_nonempty(boxes) & scores.isfinite() & boxes.isfinite().all(-1),
            iou_threshold=self.nms_iou,
            keep=limits.proposals,
        )
        return Proposals(
            boxes=zero_padding(take(boxes, keep), valid), scores=zero_padding(take(scores, keep), valid), valid=valid
        )

    def losses(self, output: RPNOutput, targets: Targets, sizes: Int64[Tensor, "N 2"]) -> dict[str, MeanLoss]:
        """`loss_objectness` and `loss_rpn_box_reg` over the sampled anchors of the batch (equation 1)."""
        matches = self.match(output.anchors, targets, sizes)
        samples = self.sampler(matches.positive, matches.negative, targets.seeds)
        count = samples.valid.sum()

        logits = take(output.logits, samples.index)
        objectness = F.binary_cross_entropy_with_logits(logits, samples.positive.float(), reduction="none")

        boxes = take(targets.boxes, take(matches.index, samples.index))
        deltas = take(output.deltas, samples.index)
        regression = self.box_loss(deltas, boxes, output.anchors[samples.index], self.box_coder)
        return {
            "loss_objectness": MeanLoss(zero_padding(objectness, samples.valid).sum(), count),
            "loss_rpn_box_reg": MeanLoss(zero_padding(regression, samples.positive).sum(), count, self.box_loss_weight),
        }

    @torch.no_grad()
    def match(self, anchors: Float[Tensor, "A 4"], targets: Targets, sizes: Int64[Tensor, "N 2"]) -> Matches:
        """Matches anchors and ground truth; an anchor too far beyond the border is neither positive, negative, nor the
        best of any.
        """
        if self.cross_boundary is None:
            return self.matcher(anchors[None], targets.boxes, targets.crowd, targets.valid)
        inside = within_images(anchors, sizes, margin=self.cross_boundary)
        candidates = zero_padding(anchors.expand(*inside.shape, 4), inside)
        matches = self.matcher(candidates, targets.boxes, targets.crowd, targets.valid)
        return Matches(matches.index, matches.positive & inside, matches.negative & inside)


def as_detections(proposals: Proposals) -> Detections:
    """Proposals as the detections of a detector with the single class `object`."""
    return Detections(
        boxes=proposals.boxes,
        scores=zero_padding(proposals.scores.sigmoid(), proposals.valid),
        labels=torch.zeros_like(proposals.scores, dtype=torch.int64),
        valid=proposals.valid,
    )


def within_images(boxes: Float[Tensor, "A 4"], sizes: Int64[Tensor, "N 2"], *, margin: float) -> Bool[Tensor, "N A"]:
    """Whether a box crosses the border of each image by at most `margin` pixels."""
    height, width = sizes[:, 0, None], sizes[:, 1, None]
    x1, y1, x2, y2 = boxes.unbind(-1)
    return (x1 >= -margin) & (y1 >= -margin) & (x2 <= width + margin) & (y2 <= height + margin)
