"""Losses of boxes and classes: numbers from a pencil, and torch's and torchvision's as oracles."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close
from torchvision.ops import complete_box_iou_loss, generalized_box_iou_loss, sigmoid_focal_loss

from resdet.models.losses import (
    BoxLoss,
    ClassificationLoss,
    RegionLoss,
    Regions,
    ciou_box_loss,
    complete_iou,
    generalized_iou,
    giou_box_loss,
    smooth_l1_box_loss,
    values,
)
from resdet.ops.box_coder import BoxCoder

CODER = BoxCoder((10.0, 10.0, 5.0, 5.0))
LOSSES = [partial(smooth_l1_box_loss, beta=0.0), giou_box_loss, ciou_box_loss]


def random_boxes(count: int, seed: int) -> Tensor:
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(seed)) * 40
    return torch.cat([corners[:, 0], corners[:, 0] + corners[:, 1] + 1], dim=1)


def test_giou_of_boxes_apart_is_minus_the_share_that_neither_covers() -> None:
    # Two unit squares at the ends of a strip of 4 x 1: IoU 0, 2 of 4 pixels are covered by neither.
    assert_close(generalized_iou(torch.tensor([0.0, 0, 1, 1]), torch.tensor([3.0, 0, 4, 1])), torch.tensor(-0.5))


def test_ciou_of_two_squares_apart_is_minus_the_distance_over_the_diagonal() -> None:
    # Centres 3 apart, diagonal squared 16 + 1, the same aspect ratio.
    ciou = complete_iou(torch.tensor([0.0, 0, 1, 1]), torch.tensor([3.0, 0, 4, 1]))
    assert_close(ciou, torch.tensor(-9 / 17))


def test_ciou_of_boxes_of_one_centre_falls_by_their_aspect_ratios() -> None:
    # 2 x 2 and 4 x 1 about the origin: 2 of 6 pixels shared, atan(4) - atan(1) apart.
    iou, aspect = 1 / 3, 4 / math.pi**2 * (math.atan(4) - math.atan(1)) ** 2
    expected = iou - aspect**2 / (1 - iou + aspect)
    ciou = complete_iou(torch.tensor([-1.0, -1, 1, 1]), torch.tensor([-2.0, -0.5, 2, 0.5]))
    assert_close(ciou, torch.tensor(expected))


@pytest.mark.parametrize(
    ("ours", "theirs"), [(giou_box_loss, generalized_box_iou_loss), (ciou_box_loss, complete_box_iou_loss)]
)
def test_losses_of_decoded_boxes_and_their_gradients_are_torchvisions(
    ours: BoxLoss, theirs: Callable[[Tensor, Tensor], Tensor]
) -> None:
    references, boxes = random_boxes(200, 0), random_boxes(200, 1)
    deltas = torch.randn(200, 4, generator=torch.Generator().manual_seed(2)).requires_grad_()
    mine, expected = ours(deltas, boxes, references, CODER), theirs(CODER.decode(deltas, references), boxes)
    assert_close(mine, expected, atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad(loss.sum(), deltas)[0] for loss in (mine, expected)]
    assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("beta", [0.0, 1 / 9, 1.0])
def test_smooth_l1_sums_torchs_loss_over_the_deltas(beta: float) -> None:
    references, boxes = random_boxes(20, 0), random_boxes(20, 1)
    deltas = torch.randn(20, 4)
    expected = F.smooth_l1_loss(deltas, CODER.encode(boxes, references), beta=beta, reduction="none").sum(1)
    assert_close(smooth_l1_box_loss(deltas, boxes, references, CODER, beta=beta), expected)


@pytest.mark.parametrize("loss", LOSSES, ids=["l1", "giou", "ciou"])
def test_perfect_deltas_cost_nothing(loss: BoxLoss) -> None:
    references, boxes = random_boxes(50, 3), random_boxes(50, 4)
    cost = loss(CODER.encode(boxes, references), boxes, references, CODER)
    assert_close(cost, torch.zeros(50), atol=2e-5, rtol=0)


@pytest.mark.parametrize("loss", LOSSES, ids=["l1", "giou", "ciou"])
def test_gradients_of_empty_boxes_are_finite(loss: BoxLoss) -> None:
    """Padding is a zero box; also a box without height against one without width."""
    references = torch.tensor([[0.0, 0, 0, 0], [0, 0, 0, 0], [5, 5, 5, 9], [5, 5, 9, 5], [1, 1, 3, 3]])
    boxes = torch.tensor([[0.0, 0, 0, 0], [1, 1, 3, 3], [5, 5, 9, 5], [5, 5, 5, 9], [0, 0, 0, 0]])
    deltas = torch.randn(5, 4).requires_grad_()
    cost = loss(deltas, boxes, references, CODER)
    (gradient,) = torch.autograd.grad(cost.sum(), deltas)
    assert cost.isfinite().all()
    assert gradient.isfinite().all()


def test_the_focal_loss_of_one_class_and_background_is_the_sigmoid_focal_loss() -> None:
    """softmax over (a, b) is the sigmoid of a - b."""
    logits = (3 * torch.randn(100, 2)).requires_grad_()
    labels = torch.arange(100) % 2
    mine = ClassificationLoss(gamma=2.0)(logits, labels)
    expected = sigmoid_focal_loss(logits[:, 0] - logits[:, 1], (labels == 0).float(), alpha=-1, gamma=2.0)
    assert_close(mine, expected, atol=1e-5, rtol=1e-4)
    gradients = [torch.autograd.grad(loss.sum(), logits)[0] for loss in (mine, expected)]
    assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-4)


def test_a_focal_loss_without_focus_is_the_cross_entropy() -> None:
    logits, labels = torch.randn(10, 4), torch.arange(10) % 4
    assert_close(ClassificationLoss(gamma=0.0)(logits, labels), ClassificationLoss()(logits, labels))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_the_focal_gradient_is_finite_where_the_class_is_certain(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0, 0], [-200.0, 0, 0]]).requires_grad_()
    loss = ClassificationLoss(gamma=gamma)(logits, torch.tensor([0, 0]))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert gradient.isfinite().all()
    assert_close(loss[0], torch.tensor(0.0))


@pytest.mark.parametrize("gamma", [None, 2.0])
def test_class_weights_multiply_the_loss_of_their_class(gamma: float | None) -> None:
    logits, labels, weights = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2]), [2.0, 0.0, 0.5]
    weighted = ClassificationLoss(gamma=gamma, class_weights=weights)(logits, labels)
    plain = ClassificationLoss(gamma=gamma)(logits, labels)
    assert_close(weighted, plain * torch.tensor([2.0, 0, 0.5, 2, 0, 0.5]))


def regions_of(labels: list[int], valid: list[bool]) -> Regions:
    """Regions of one image, each with a ground truth twice as wide and of the same centre and height."""
    boxes = torch.tensor([10.0, 10, 20, 20]).repeat(1, len(labels), 1)
    matched = torch.tensor([5.0, 10, 25, 20]).repeat(1, len(labels), 1)
    return Regions(boxes, torch.tensor([labels]), torch.zeros(1, len(labels)).long(), matched, torch.tensor([valid]))


@pytest.mark.parametrize("boxes_a_region", [1, 2])
def test_the_loss_of_regions_by_hand(boxes_a_region: int) -> None:
    """Two classes, logits of zero: each region costs log(3), a positive one also 5 log(2); the divisor counts both."""
    regions = regions_of(labels=[1, 2, 0, 2], valid=[True, True, False, False])
    loss = RegionLoss(ClassificationLoss(), partial(smooth_l1_box_loss, beta=0.0), box_loss_weight=3.0)
    losses = values(loss(torch.zeros(1, 4, 3), torch.zeros(1, 4, boxes_a_region, 4), regions, CODER))
    assert_close(losses["loss_classifier"], torch.tensor(math.log(3)))
    assert_close(losses["loss_box_reg"], torch.tensor(3 * 5 * math.log(2) / 2))


def test_only_the_deltas_of_a_regions_own_class_learn() -> None:
    regions = regions_of(labels=[1], valid=[True])
    deltas = torch.zeros(1, 1, 3, 4).requires_grad_()
    loss = RegionLoss(ClassificationLoss(), giou_box_loss)
    losses = values(loss(torch.zeros(1, 1, 4), deltas, regions, CODER))
    (gradient,) = torch.autograd.grad(losses["loss_box_reg"], deltas)
    assert gradient[0, 0, 1].any()
    assert not gradient[0, 0, [0, 2]].any()
    assert_close(losses["loss_box_reg"], torch.tensor(0.5))  # half of the ground truth is covered


def test_an_empty_batch_costs_nothing() -> None:
    regions = regions_of(labels=[2, 2], valid=[False, False])
    loss = RegionLoss(ClassificationLoss(), ciou_box_loss)
    losses = values(loss(torch.zeros(1, 2, 3), torch.zeros(1, 2, 2, 4), regions, CODER))
    assert losses == {"loss_classifier": 0, "loss_box_reg": 0}
