"""Losses of boxes (functions of the boxes' deltas) and of classes (functions of class logits)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from resdet.ops.box_coder import BoxCoder
from resdet.ops.boxes import iou_and_union
from resdet.ops.dense import of_class, zero_padding

TINY = 1e-7  # keeps quotients of empty boxes and their gradients finite


@dataclass(frozen=True)
class MeanLoss:
    """A mean over the entries of a batch that count, as their sum and their number.

    The two are separate because one mean over the batches of several processes is not the mean of their means: the
    numbers of entries differ. Only the trainer knows that there are other processes.
    """

    total: Float[Tensor, ""]
    count: Int64[Tensor, ""]
    weight: float = 1.0  # a factor on the mean

    def over(self, count: Int64[Tensor, ""], *, shares: int = 1) -> Float[Tensor, ""]:
        """The loss with another number of entries: that of the batches of `shares` processes together.

        The mean of these values over the processes is the loss of the whole batch, and so is the mean of their
        gradients. 0 if no entry counts.
        """
        entries = count.clamp(min=1)
        return self.total / (entries if shares == 1 else entries / shares) * self.weight

    @property
    def value(self) -> Float[Tensor, ""]:
        """The mean of this batch alone."""
        return self.over(self.count)


def values(losses: Mapping[str, MeanLoss]) -> dict[str, Float[Tensor, ""]]:
    """The losses of one batch by name."""
    return {name: loss.value for name, loss in losses.items()}


# (deltas, boxes, references, coder) to the loss of each entry: `deltas` were predicted for `references`, whose
# ground truth are `boxes`. Gradients stay finite for padding, so that a sum may mask entries by a product.
BoxLoss = Callable[[Tensor, Tensor, Tensor, BoxCoder], Tensor]


def smooth_l1_box_loss(
    deltas: Float[Tensor, "*S 4"],
    boxes: Float[Tensor, "*S 4"],
    references: Float[Tensor, "*S 4"],
    coder: BoxCoder,
    *,
    beta: float,
) -> Float[Tensor, "*S"]:
    """The sum over the four deltas, quadratic below `beta` and linear above (Girshick 2015, equation 3); 0 is L1."""
    return F.smooth_l1_loss(deltas, coder.encode(boxes, references), beta=beta, reduction="none").sum(-1)


def giou_box_loss(
    deltas: Float[Tensor, "*S 4"], boxes: Float[Tensor, "*S 4"], references: Float[Tensor, "*S 4"], coder: BoxCoder
) -> Float[Tensor, "*S"]:
    """1 - GIoU of the decoded boxes and the ground truth (Rezatofighi et al. 2019, algorithm 1)."""
    return 1 - generalized_iou(coder.decode(deltas, references), boxes)


def ciou_box_loss(
    deltas: Float[Tensor, "*S 4"], boxes: Float[Tensor, "*S 4"], references: Float[Tensor, "*S 4"], coder: BoxCoder
) -> Float[Tensor, "*S"]:
    """1 - CIoU of the decoded boxes and the ground truth (Zheng et al. 2020, equations 8 to 11)."""
    return 1 - complete_iou(coder.decode(deltas, references), boxes)


def generalized_iou(first: Float[Tensor, "*S 4"], second: Float[Tensor, "*S 4"]) -> Float[Tensor, "*S"]:
    """The IoU of each pair minus the fraction of their enclosing box that neither covers, in [-1, 1]."""
    iou, union = iou_and_union(first, second)
    enclosing = _enclosing_sides(first, second).prod(-1)
    return iou - (enclosing - union) / (enclosing + TINY)


def complete_iou(first: Float[Tensor, "*S 4"], second: Float[Tensor, "*S 4"]) -> Float[Tensor, "*S"]:
    """IoU of each pair minus the squared distance of the centres (over the enclosing box's squared diagonal) and minus
    the difference of the aspect ratios, whose weight has no gradient. `second` is the ground truth.
    """
    iou, _ = iou_and_union(first, second)
    diagonal = _enclosing_sides(first, second).square().sum(-1) + TINY
    shift = (first[..., :2] + first[..., 2:] - second[..., :2] - second[..., 2:]) / 2
    aspect = (4 / math.pi**2) * (_aspect_angle(second) - _aspect_angle(first)).square()
    with torch.no_grad():
        weight = aspect / (1 - iou + aspect + TINY)
    return iou - shift.square().sum(-1) / diagonal - weight * aspect


def _enclosing_sides(first: Float[Tensor, "*S 4"], second: Float[Tensor, "*S 4"]) -> Float[Tensor, "*S 2"]:
    return torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(first[..., :2], second[..., :2])


def _aspect_angle(boxes: Float[Tensor, "*S 4"]) -> Float[Tensor, "*S"]:
    """Arc tangent of width over height."""
    width, height = (boxes[..., 2:] - boxes[..., :2]).unbind(-1)
    return torch.atan(width / height.clamp(min=TINY))


class ClassificationLoss(nn.Module):
    """The cross entropy of the softmax over K classes and the background, or its focal form.

    The focal form is (1 - p_t)^gamma times the cross entropy, after Lin et al. 2017, "Focal Loss", equation 4, with the
    softmax in place of the sigmoid, so that prediction does not depend on the loss.

    Args:
        gamma: of the focal form; None: the plain cross entropy.
        class_weights: a factor on the loss of a region of each class, the background last; None: 1 for all.
    """

    class_weights: Tensor | None

    def __init__(self, *, gamma: float | None = None, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.gamma = gamma
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, logits: Float[Tensor, "M K_1"], labels: Int64[Tensor, " M"]) -> Float[Tensor, " M"]:
        """The loss of each region."""
        if self.gamma is None:
            return F.cross_entropy(logits, labels, weight=self.class_weights, reduction="none")
        entropy = F.cross_entropy(logits, labels, reduction="none")
        # 1 - p_t; the gradient of its power is infinite at zero for a small gamma
        doubt = (-torch.expm1(-entropy)).clamp(min=TINY)
        focal = doubt**self.gamma * entropy
        return focal if self.class_weights is None else focal * self.class_weights[labels]


@dataclass(frozen=True)
class Regions:
    """Regions for the training of the second stage.

    `labels` are 0 .. K-1, and K for the background; `matched` is the ground-truth slot of each region, and
    `matched_boxes` its box; a region that is not `valid` does not contribute to the loss.
    """

    boxes: Float[Tensor, "N R 4"]
    labels: Int64[Tensor, "N R"]
    matched: Int64[Tensor, "N R"]
    matched_boxes: Float[Tensor, "N R 4"]
    valid: Bool[Tensor, "N R"]


class RegionLoss(nn.Module):
    """The loss of a box head: the class loss over all sampled regions and the box loss over the positives.

    Both are sums over the batch divided by the number of sampled regions (Girshick 2015, equation 1; Detectron2 uses
    the same divisor for GIoU and CIoU); class weights do not change the divisor.

    Args:
        classification: the loss of a region's class.
        box_loss: the loss of a region's deltas.
        box_loss_weight: factor on the loss of the boxes.
    """

    def __init__(self, classification: ClassificationLoss, box_loss: BoxLoss, *, box_loss_weight: float = 1.0) -> None:
        super().__init__()
        self.classification = classification
        self.box_loss = box_loss
        self.box_loss_weight = box_loss_weight

    def forward(
        self,
        logits: Float[Tensor, "N R K_1"],
        deltas: Float[Tensor, "N R K 4"],
        regions: Regions,
        coder: BoxCoder,
    ) -> dict[str, MeanLoss]:
        """`loss_classifier` and `loss_box_reg`; with class-agnostic deltas, the K of `deltas` is 1."""
        valid, labels = regions.valid, regions.labels
        count = valid.sum()
        classification = self.classification(logits.flatten(0, 1), labels.flatten())

        positive = valid & (labels < logits.shape[2] - 1)
        regression = self.box_loss(of_class(deltas, labels), regions.matched_boxes, regions.boxes, coder)
        return {
            "loss_classifier": MeanLoss(zero_padding(classification.view_as(valid), valid).sum(), count),
            "loss_box_reg": MeanLoss(zero_padding(regression, positive).sum(), count, self.box_loss_weight),
        }
