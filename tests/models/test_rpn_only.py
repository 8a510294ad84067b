"""A detector of the first stage alone, and which of its anchors teach."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from resdet.config import load_config
from resdet.errors import UserError
from resdet.models.build.detector import build_model
from resdet.models.rcnn import RCNN
from resdet.models.rpn import within_images
from resdet.structures import Batch, Targets

NANO = Path(__file__).parents[2] / "configs/nano.yaml"


def rpn_of(*overrides: str) -> RCNN:
    _ = torch.manual_seed(0)
    return build_model(load_config(NANO, overrides=["model.box_head=null", *overrides]).model, 3)


def batch_of(boxes: list[list[float]], size: tuple[int, int] = (64, 64)) -> Batch:
    """One image of 64 x 64 pixels, of which `size` are not padding."""
    truth = torch.tensor([boxes]).float()
    valid = torch.ones(1, len(boxes), dtype=torch.bool)
    targets = Targets(truth, torch.zeros(1, len(boxes)).long(), ~valid, valid, torch.tensor([7]))
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Batch(images, torch.tensor([size]), targets)


def test_it_has_the_losses_of_the_first_stage_of_a_whole_detector() -> None:
    first, batch = rpn_of(), batch_of([[10, 10, 30, 40], [30, 5, 60, 30]])
    whole = build_model(load_config(NANO).model, 3)
    state = {name: value for name, value in whole.state_dict().items() if not name.startswith("roi_heads.")}
    _ = first.load_state_dict(state)
    losses, of_whole = first(batch), whole(batch)
    assert losses.keys() == {"loss_objectness", "loss_rpn_box_reg"}
    for name, loss in losses.items():
        assert_close(loss, of_whole[name], atol=0, rtol=0)


def test_it_detects_its_proposals() -> None:
    model, batch = rpn_of("model.rpn.proposals_test=30").eval(), batch_of([[10, 10, 30, 40]])
    proposals = model.rpn.proposals(
        model.rpn(model.neck(model.backbone(model.normalized(batch)))), batch.sizes, model.test_limits
    )
    found = model.predict(batch)
    assert found.boxes.shape == (1, 30, 4)
    assert_close(found.boxes, proposals.boxes)
    assert_close(found.scores, proposals.scores.sigmoid() * proposals.valid)
    assert not found.labels.any()
    assert (found.scores.diff() <= 0).all(), "best first"


@pytest.mark.parametrize("layout", ["fpn", "c4", "dc5"])
def test_every_parameter_learns(layout: str) -> None:
    """So none is left of what would have run on regions, such as conv5 of a C4."""
    sizes = [] if layout == "fpn" else ["model.anchors.sizes=[8, 16]"]
    model = rpn_of("model.backbone={name: resnet18, norm: gn}", f"model.neck.name={layout}", *sizes)
    _ = torch.stack(list(model(batch_of([[10, 10, 30, 40]])).values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
    assert model.roi_heads is None


def test_an_anchor_may_cross_the_border_by_the_margin() -> None:
    boxes = torch.tensor([[0.0, 0, 40, 30], [-1, 0, 40, 30], [0, 0, 40, 31], [0, 0, 43, 33], [-3, -3, 0, 0]])
    sizes = torch.tensor([[30, 40], [64, 64]])
    assert within_images(boxes, sizes, margin=0.0).tolist() == [
        [True, False, False, False, False],
        [True, False, True, True, False],
    ]
    assert within_images(boxes, sizes, margin=3.0).tolist() == [[True] * 5] * 2


def test_anchors_across_the_border_teach_only_where_they_may() -> None:
    """An object at the corner, best overlapped by the first anchor, which lies half outside."""
    anchors = torch.tensor([[-4.0, -4, 12, 12], [0, 0, 16, 16], [40, 40, 56, 56], [56, 56, 72, 72]])
    batch = batch_of([[0, 0, 12, 12]])
    assert batch.targets is not None
    free = rpn_of().rpn.match(anchors, batch.targets, batch.sizes)
    assert free.positive.tolist() == [[True, True, False, False]]  # IoU 144/256, the same for the second
    assert free.negative.tolist() == [[False, False, True, True]]
    strict = rpn_of("model.rpn.cross_boundary=0").rpn.match(anchors, batch.targets, batch.sizes)
    assert strict.positive.tolist() == [[False, True, False, False]]
    assert strict.negative.tolist() == [[False, False, True, False]]
    loose = rpn_of("model.rpn.cross_boundary=100").rpn.match(anchors, batch.targets, batch.sizes)
    assert loose.positive.tolist() == free.positive.tolist()
    assert loose.negative.tolist() == free.negative.tolist()


def test_the_best_anchor_of_an_object_is_sought_among_those_that_may_teach() -> None:
    """The second anchor overlaps less than the first, which is across the border, and is positive in its place."""
    anchors = torch.tensor([[-2.0, 0, 10, 10], [0, 0, 10, 20], [40, 40, 50, 50]])
    batch = batch_of([[0, 0, 10, 10]])
    assert batch.targets is not None
    strict = rpn_of("model.rpn.cross_boundary=0").rpn.match(anchors, batch.targets, batch.sizes)
    assert strict.positive.tolist() == [[False, True, False]]  # IoU 0.5, below foreground_iou


@pytest.mark.parametrize("loss", ["giou", "ciou"])
def test_other_box_losses_change_the_boxes_loss_alone(loss: str) -> None:
    batch = batch_of([[10, 10, 30, 40]])
    plain, other = rpn_of()(batch), rpn_of(f"model.rpn.box_loss={loss}")(batch)
    assert_close(other["loss_objectness"], plain["loss_objectness"])
    assert other["loss_rpn_box_reg"] != plain["loss_rpn_box_reg"]
    twice = rpn_of(f"model.rpn.box_loss={loss}", "model.rpn.box_loss_weight=2")(batch)
    assert_close(twice["loss_rpn_box_reg"], 2 * other["loss_rpn_box_reg"])


def test_a_mask_head_needs_a_box_head() -> None:
    with pytest.raises(UserError, match=r"model\.mask_head needs the box head that model\.box_head=null leaves out"):
        _ = rpn_of("model.mask_head.name=fcn")
