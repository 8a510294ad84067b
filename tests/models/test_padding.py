"""Padding is exactly zero and has no say, whatever it points to; what is too little to work on is right or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from resdet.config import load_config
from resdet.models.build.detector import build_model
from resdet.models.losses import ClassificationLoss, RegionLoss, Regions, giou_box_loss, values
from resdet.models.rcnn import RCNN
from resdet.models.rpn import AnchorGenerator, ProposalLimits, RPNOutput, as_detections
from resdet.models.second_stage.detections import DetectionLimits, suppressed
from resdet.models.second_stage.mask_head import mask_loss
from resdet.models.second_stage.roi_heads import RoIHeads
from resdet.ops.box_coder import BoxCoder
from resdet.structures import Batch, Detections, Proposals, Targets

NANO = Path(__file__).parents[2] / "configs/nano.yaml"
NAN, INF = float("nan"), float("inf")
BROKEN = [NAN, INF, -INF]


@pytest.fixture(scope="module")
def model() -> RCNN:
    _ = torch.manual_seed(0)
    overrides = ["model.mask_head={name: fcn, channels: 8, convs: 1}", "model.box_head.score_threshold=0.0"]
    return build_model(load_config(NANO, overrides=overrides).model, 3).eval()


def heads_of(model: RCNN) -> RoIHeads:
    assert model.roi_heads is not None
    return model.roi_heads


def padding_of(noun: Proposals | Detections) -> list[Tensor]:
    return [value[~noun.valid] for name, value in vars(noun).items() if value is not None and name != "valid"]


@pytest.mark.parametrize("value", BROKEN)
def test_proposals_are_zero_behind_the_last_real_one(model: RCNN, value: float) -> None:
    """NMS points padding at position 0, where the best logit lies: here the anchor that is no number."""
    anchors = torch.tensor([[0.0, 0, 20, 20], [30, 30, 60, 60], [0, 40, 10, 60]])
    logits = torch.tensor([[value, 1.0, 0.5], [2.0, 1.0, 0.5]])
    deltas = torch.zeros(2, 3, 4)
    deltas[:, 0] = value
    proposals = model.rpn.proposals(
        RPNOutput(logits, deltas, anchors, (3,)), torch.tensor([[64, 64]] * 2), ProposalLimits(3, 5)
    )
    assert proposals.valid.sum(1).tolist() == [2, 2]
    assert not any(part.any() for part in padding_of(proposals))
    assert not any(part.any() for part in padding_of(as_detections(proposals)))


@pytest.mark.parametrize("value", BROKEN)
def test_detections_are_zero_behind_the_last_real_one(value: float) -> None:
    boxes = torch.tensor([[[value] * 4, [0.0, 0, 10, 10]]])
    candidates = Detections(boxes, torch.tensor([[value, 0.9]]), torch.tensor([[7, 2]]), torch.tensor([[False, True]]))
    found = suppressed(candidates, DetectionLimits(0.0, 0.5, 3))
    assert found.boxes.tolist() == [[[0, 0, 10, 10], [0] * 4, [0] * 4]]
    assert_close(found.scores, torch.tensor([[0.9, 0, 0]]))
    assert found.labels.tolist() == [[2, 0, 0]]


def test_masks_of_padding_are_zero_even_where_the_head_is_no_number(model: RCNN) -> None:
    head = heads_of(model).mask_head
    assert head is not None
    valid = torch.tensor([[True, False]])
    detections = Detections(torch.zeros(1, 2, 4), torch.zeros(1, 2), torch.zeros(1, 2).long(), valid)
    regions = torch.stack([torch.zeros(16, 14, 14), torch.full((16, 14, 14), NAN)])
    channels = next(head.parameters()).shape[1]
    masks = head.predict(lambda _: regions[:, :channels], detections).masks
    assert masks is not None
    assert masks[0, 0].all()
    assert not masks[0, 1].any()


def test_the_padding_of_an_image_is_zero_whatever_it_held(model: RCNN) -> None:
    images = torch.full((1, 3, 64, 64), INF)
    images[:, :, :40, :50] = 100.0
    normalized = model.normalized(Batch(images, torch.tensor([[40, 50]])))
    assert normalized[:, :, :40, :50].isfinite().all()
    assert not normalized[:, :, 40:].any()
    assert not normalized[:, :, :, 50:].any()


def test_regions_that_do_not_count_cost_nothing() -> None:
    logits, deltas = torch.randn(1, 2, 4), torch.randn(1, 2, 3, 4)
    logits[0, 1], deltas[0, 1] = NAN, NAN

    box = torch.tensor([[[0.0, 0, 10, 10], [NAN] * 4]])
    regions = Regions(box, torch.tensor([[1, 3]]), torch.zeros(1, 2).long(), box, torch.tensor([[True, False]]))
    losses = RegionLoss(ClassificationLoss(), giou_box_loss)(logits, deltas, regions, BoxCoder((1.0, 1.0, 1.0, 1.0)))
    first = Regions(**{name: value[:, :1] for name, value in vars(regions).items()})
    expected = RegionLoss(ClassificationLoss(), giou_box_loss)(
        logits[:, :1], deltas[:, :1], first, BoxCoder((1.0, 1.0, 1.0, 1.0))
    )
    for name, loss in losses.items():
        assert_close(loss.value, expected[name].value)
    one = mask_loss(torch.tensor([0.0, NAN]).view(1, 2, 1, 1, 1), torch.zeros(1, 2).long(),
        torch.ones(1, 2, 1, 1, dtype=torch.bool), torch.tensor([[True, False]]))  # fmt: skip
    assert_close(one.value, torch.tensor(2.0).log())


# Nothing to work on


@pytest.mark.parametrize("cascade", ["model.cascade={}", "model.cascade=null"])
def test_a_second_stage_without_proposals_finds_nothing_and_learns_from_the_ground_truth(cascade: str) -> None:
    net = build_model(load_config(NANO, overrides=[cascade]).model, 3)
    heads = heads_of(net)
    features = [torch.randn(2, net.neck.channels, 64 // s, 64 // s) for s in net.neck.strides]
    none = Proposals(torch.zeros(2, 0, 4), torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.bool))
    sizes, valid = torch.tensor([[64, 64]] * 2), torch.tensor([[True], [False]])
    found = heads.eval().predict(features, none, sizes)
    assert not any(value.any() for value in vars(found).values() if value is not None)
    boxes = torch.tensor([[[4.0, 4, 40, 50]], [[0.0] * 4]])
    targets = Targets(boxes, torch.tensor([[1], [0]]), ~valid & valid, valid, torch.arange(2))
    losses = values(heads.train().losses(features, none, targets, sizes))
    assert all(loss.isfinite() for loss in losses.values())
    empty = replace(targets, valid=valid & ~valid)
    assert not any(loss.value for loss in heads.losses(features, none, empty, sizes).values())


@pytest.mark.parametrize(
    ("sizes", "ratios", "strides", "message"),
    [
        ([[32.0], [64.0, 80.0]], [1.0], [8, 16], "each level needs as many"),
        ([[32.0]], [1.0], [8, 16], "1 levels of anchor sizes for 2 feature levels"),
        ([[], []], [1.0], [8, 16], "one at least"),
        ([[32.0]], [], [8], "one at least"),
        ([], [], [], "one at least"),
    ],
)
def test_an_anchor_generator_of_unequal_levels_is_refused(
    sizes: list[list[float]], ratios: list[float], strides: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        _ = AnchorGenerator(sizes, ratios, strides, rounded=False)
    assert "\n" not in str(refusal.value)


def test_an_anchor_generator_is_given_as_many_maps_as_it_has_levels() -> None:
    generator = AnchorGenerator([[32.0], [64.0]], [1.0], [8, 16], rounded=False)
    with pytest.raises(ValueError, match="zip"):
        _ = generator([torch.zeros(1, 1, 4, 4)])
