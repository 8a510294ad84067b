"""The region proposal network of ILSVRC localization: a score and a box for each class (He et al. 2015, appendix C)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from resdet.models.losses import MeanLoss
from resdet.models.rpn import RPN, ProposalLimits, RPNOutput
from resdet.ops.boxes import clip_boxes, is_nonempty
from resdet.ops.dense import of_class, take, zero_padding
from resdet.ops.nms import batched_nms
from resdet.structures import Detections, Targets


class PerClassRPN(RPN):
    """Each anchor has K binary scores, for being an object of a class or not, and K boxes.

    Its output has each anchor K times, once per class, one after the other; so its head is one for `per_cell * K`
    anchors. Its detections have classes: it is a detector by itself.
    """

    def __init__(self, *parts: Any, num_classes: int, **options: Any) -> None:
        """`parts` and `options` are those of `RPN`."""
        super().__init__(*parts, **options)
        self.num_classes = num_classes

    def anchors(self, features: Sequence[Float[Tensor, "N C _h _w"]]) -> Float[Tensor, "A 4"]:
        return super().anchors(features).repeat_interleave(self.num_classes, dim=0)

    def losses(self, output: RPNOutput, targets: Targets, sizes: Int64[Tensor, "N 2"]) -> dict[str, MeanLoss]:
        """`loss_objectness`, the sum over the classes of their logistic losses, and `loss_rpn_box_reg`, of the box of
        an object's own class, over the sampled anchors of the batch. An anchor of the background is of no class.
        """
        anchors = output.anchors[:: self.num_classes]
        matches = self.match(anchors, targets, sizes)
        samples = self.sampler(matches.positive, matches.negative, targets.seeds)
        count = samples.valid.sum()
        matched = take(matches.index, samples.index)
        labels = take(targets.labels, matched)

        logits = take(output.logits.unflatten(1, (-1, self.num_classes)), samples.index)
        wanted = zero_padding(F.one_hot(labels, self.num_classes).to(logits), samples.positive)
        each = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(-1)

        deltas = of_class(take(output.deltas.unflatten(1, (-1, self.num_classes)), samples.index), labels)
        regression = self.box_loss(deltas, take(targets.boxes, matched), anchors[samples.index], self.box_coder)
        return {
            "loss_objectness": MeanLoss(zero_padding(each, samples.valid).sum(), count),
            "loss_rpn_box_reg": MeanLoss(zero_padding(regression, samples.positive).sum(), count, self.box_loss_weight),
        }

    @torch.no_grad()
    def detections(self, output: RPNOutput, sizes: Int64[Tensor, "N 2"], limits: ProposalLimits) -> Detections:
        """The best boxes of each image after NMS within each class; `limits.pre_nms` counts over all levels."""
        index = output.logits.topk(min(limits.pre_nms, output.logits.shape[1])).indices
        scores, deltas, labels = take(output.logits, index), take(output.deltas, index), index % self.num_classes
        boxes = clip_boxes(self.box_coder.decode(deltas, output.anchors[index]), sizes)
        usable = is_nonempty(boxes) & scores.isfinite() & boxes.isfinite().all(-1)
        keep, valid = batched_nms(boxes, scores, labels, usable, iou_threshold=self.nms_iou, keep=limits.proposals)
        return Detections(
            boxes=zero_padding(take(boxes, keep), valid),
            scores=zero_padding(take(scores, keep).sigmoid(), valid),
            labels=zero_padding(take(labels, keep), valid),
            valid=valid,
        )
