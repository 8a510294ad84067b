"""The mask head: what it learns from, what it adds to detections, and which parts it goes with."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from resdet.config import ModelConfig, load_config
from resdet.errors import UserError
from resdet.models.build.detector import build_model
from resdet.models.rcnn import RCNN
from resdet.models.second_stage.box_head import C5BoxHead
from resdet.models.second_stage.mask_head import MaskHead, mask_loss
from resdet.models.second_stage.roi_heads import RoIHeads
from resdet.ops.dense import of_class
from resdet.structures import Batch, Proposals, Targets

CLASSES = 3


def config_of(layout: str, *overrides: str) -> ModelConfig:
    return load_config(overrides=[
        f"model.backbone.name={'resnet18' if layout == 'c4' else 'nano'}", "model.backbone.norm=gn",
        "model.backbone.frozen_stages=0", f"model.neck.name={layout}", "model.neck.channels=8",
        "model.box_head.fc_dim=16", "model.rpn.pre_nms_train=60", "model.rpn.proposals_train=20",
        "model.rpn.pre_nms_test=60", "model.rpn.proposals_test=20", "model.box_head.batch_size_per_image=16",
        "model.box_head.detections=6", "model.box_head.score_threshold=0.0", "model.mask_head.name=fcn", *overrides,
    ]).model  # fmt: skip


def model_of(layout: str, *overrides: str) -> RCNN:
    _ = torch.manual_seed(0)
    model = build_model(config_of(layout, *overrides), CLASSES)
    with torch.no_grad():  # scores and masks that differ
        _ = model.get_parameter("roi_heads.box_predictor.cls_score.weight").normal_(std=0.5)
        _ = model.rpn.head.bbox_pred.weight.normal_(std=0.1)
        _ = head_of(model).predictor.weight.normal_(std=0.5)
    return model


def heads_of(model: RCNN) -> RoIHeads:
    assert model.roi_heads is not None
    return model.roi_heads


def head_of(model: RCNN) -> MaskHead:
    head = heads_of(model).mask_head
    assert head is not None
    return head


def batch() -> Batch:
    """Two objects, one and none; masks of 8 x 8 cells."""
    boxes = torch.zeros(3, 4, 4)
    boxes[0, :2] = torch.tensor([[4.0, 4, 40, 50], [30, 10, 90, 60]])
    boxes[1, :1] = torch.tensor([[10.0, 20, 60, 55]])
    valid = boxes.any(-1)
    labels = torch.tensor([[0, 2, 0, 0], [1, 0, 0, 0], [0] * 4])
    masks = torch.randint(0, 256, (3, 4, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    targets = Targets(boxes, labels, ~valid & False, valid, torch.arange(3), masks * valid[..., None, None])
    images = torch.randint(0, 256, (3, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Batch(images, torch.tensor([[64, 96], [60, 70], [64, 80]]), targets)


def targets_of(batch: Batch) -> Targets:
    assert batch.targets is not None
    return batch.targets


def mask_loss_of(model: RCNN, batch: Batch) -> Tensor:
    return model(batch)["loss_mask"]


# The loss


def test_an_undecided_mask_costs_the_logarithm_of_two() -> None:
    wanted = torch.rand(1, 4, 14, 14, generator=torch.Generator().manual_seed(0)) < 0.3
    labels, counted = torch.tensor([[0, 1, 2, 0]]), torch.ones(1, 4, dtype=torch.bool)
    loss = mask_loss(torch.zeros(1, 4, CLASSES, 14, 14), labels, wanted, counted)
    assert_close(loss.value, torch.tensor(math.log(2)))


def test_the_loss_is_the_mean_over_the_regions_that_count() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, 3.0])[None, :, None, None, None].expand(1, 4, 1, 2, 2)
    wanted = torch.ones(1, 4, 2, 2, dtype=torch.bool)
    loss = mask_loss(logits, torch.zeros(1, 4).long(), wanted, torch.tensor([[False, True, False, True]]))
    assert_close(loss.value, torch.tensor((math.log1p(math.exp(-1)) + math.log1p(math.exp(-3))) / 2))


def test_only_the_mask_of_the_own_class_learns() -> None:
    logits = torch.zeros(1, 2, CLASSES, 4, 4, requires_grad=True)
    wanted = torch.ones(1, 2, 4, 4, dtype=torch.bool)
    _ = mask_loss(logits, torch.tensor([[2, 0]]), wanted, torch.ones(1, 2, dtype=torch.bool)).value.backward()
    assert logits.grad is not None
    assert logits.grad[0].any((2, 3)).tolist() == [[False, False, True], [True, False, False]]


def test_one_mask_for_all_classes_serves_each_of_them() -> None:
    logits = torch.randn(1, 4, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    assert_close(of_class(logits, torch.tensor([[0, 1, 2, CLASSES]])), logits[:, :, 0])


# Training


@pytest.mark.parametrize("layout", ["fpn", "dc5", "c4"])
def test_every_parameter_of_the_head_gets_a_finite_gradient(layout: str) -> None:
    overrides = ["model.backbone.name=resnet18"] if layout == "dc5" else []
    model = model_of(layout, *overrides)
    _ = mask_loss_of(model, batch()).backward()
    for name, parameter in head_of(model).named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_conv5_of_a_c4_learns_from_boxes_and_masks() -> None:
    model = model_of("c4")
    box_head = heads_of(model).box_head
    assert isinstance(box_head, C5BoxHead)
    _ = mask_loss_of(model, batch()).backward()
    assert all(p.grad is not None and p.grad.any() for p in box_head.layer4.parameters())
    assert model.get_parameter("roi_heads.box_predictor.cls_score.weight").grad is None


def test_conv5_of_a_c4_sees_a_region_once_for_both_heads() -> None:
    model, seen = model_of("c4"), []
    box_head = heads_of(model).box_head
    assert isinstance(box_head, C5BoxHead)
    _ = box_head.layer4.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    _ = head_of(model).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    _ = model(batch())
    regions, maps = seen
    assert len(regions) == 3 * 16
    each = torch.arange(3 * 16).unflatten(0, (3, 16))[:, :4].flatten()  # the first quarter may be positive
    assert_close(maps, box_head.maps(regions[each]), atol=1e-5, rtol=1e-5)


def test_global_context_leaves_the_masks_of_a_c4_alone() -> None:
    model, alone = model_of("c4", "model.box_head.global_context=true"), model_of("c4")
    predictor = {name: value for name, value in alone.state_dict().items() if ".box_predictor." in name}
    _ = alone.load_state_dict(model.state_dict() | predictor)
    assert_close(mask_loss_of(model, batch()), mask_loss_of(alone, batch()), atol=1e-5, rtol=1e-5)


def test_without_a_positive_the_loss_is_zero_and_so_is_its_gradient() -> None:
    model, given = model_of("fpn"), batch()
    targets = targets_of(given)
    empty = replace(targets, valid=targets.valid & False)
    loss = mask_loss_of(model, replace(given, targets=empty))
    _ = loss.backward()
    assert loss == 0
    for name, parameter in head_of(model).named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


def test_an_object_without_a_mask_teaches_boxes_alone() -> None:
    model, given = model_of("fpn"), batch()
    masks = targets_of(given).masks
    assert masks is not None
    maskless = replace(given, targets=replace(targets_of(given), masks=masks * 0))
    losses = model(maskless)
    assert losses["loss_mask"] == 0
    for name, loss in model(given).items():
        assert name == "loss_mask" or loss == losses[name]


def test_the_mean_is_over_the_regions_whose_object_has_a_mask() -> None:
    model, given = model_of("fpn"), batch()
    masks = targets_of(given).masks
    assert masks is not None
    regions = heads_of(model).sample(*proposals_and_targets(model, given))
    counts = (regions.labels < CLASSES).sum(1)
    losses = []
    for image in range(2):  # the masks of one image, and those of all others are missing
        some = torch.zeros_like(masks)
        some[image] = masks[image]
        losses.append(mask_loss_of(model, replace(given, targets=replace(targets_of(given), masks=some))))
    assert counts[:2].all()
    mean = (losses[0] * counts[0] + losses[1] * counts[1]) / counts.sum()
    assert_close(mask_loss_of(model, given), mean)


def test_crowd_teaches_no_mask() -> None:
    """It is never matched, so whatever its mask shows, the loss is the same."""
    model, given = model_of("fpn"), batch()
    targets = targets_of(given)
    crowd = targets.crowd.clone()
    crowd[0, 1] = True
    losses = []
    for value in (1, 255):
        masks = targets.masks
        assert masks is not None
        masks = masks.clone()
        masks[0, 1] = value
        losses.append(mask_loss_of(model, replace(given, targets=replace(targets, crowd=crowd, masks=masks))))
    assert losses[0] > 0
    assert losses[0] == losses[1]


def test_the_head_sees_no_more_regions_than_can_be_positive() -> None:
    model, seen = model_of("fpn", "model.box_head.positive_fraction=0.3"), []
    _ = head_of(model).register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    _ = model(batch())
    assert seen == [3 * 4]  # 30 % of 16, rounded down, in each of the three images
    regions = heads_of(model).sample(*proposals_and_targets(model, batch()))
    assert not (regions.labels[:, 4:] < CLASSES).any(), "no positive is left out"


def proposals_and_targets(model: RCNN, batch: Batch) -> tuple[Proposals, Targets]:
    features = model.neck(model.backbone(model.normalized(batch)))
    return model.rpn.proposals(model.rpn(features), batch.sizes, model.train_limits), targets_of(batch)


def test_the_loss_does_not_depend_on_the_order_of_the_images() -> None:
    model, given, order = model_of("fpn"), batch(), [2, 0, 1]
    targets = Targets(**{name: value[order] for name, value in vars(targets_of(given)).items()})
    other = Batch(given.images[order], given.sizes[order], targets)
    assert_close(mask_loss_of(model, other), mask_loss_of(model, given), atol=1e-5, rtol=1e-5)


def test_the_loss_is_float32_under_autocast() -> None:
    model = model_of("fpn")
    with torch.autocast("cpu", torch.bfloat16):
        losses, masks = model(batch()), model.eval().predict(batch()).masks
    assert losses["loss_mask"].dtype == torch.float32
    assert losses["loss_mask"].isfinite()
    assert masks is not None
    assert masks.dtype == torch.float32


def test_targets_without_masks_are_named() -> None:
    given = batch()
    with pytest.raises(AssertionError, match="learns from masks: these targets have none"):
        _ = model_of("fpn")(replace(given, targets=replace(targets_of(given), masks=None)))


def test_a_square_and_a_disc_are_learnt() -> None:
    """A head on regions that show the object as it is learns to repeat it."""
    _ = torch.manual_seed(0)
    head = MaskHead(1, CLASSES, convs=2, channels=8)
    axis = torch.linspace(-1, 1, 14)
    disc = (axis[:, None] ** 2 + axis[None] ** 2 < 0.7).float()
    square = (axis[:, None].abs().maximum(axis[None].abs()) < 0.6).float()
    regions = torch.stack([disc, square])[:, None]
    wanted = torch.stack([disc, square]).repeat_interleave(2, 1).repeat_interleave(2, 2).bool()[None]
    labels, counted = torch.tensor([[0, 2]]), torch.ones(1, 2, dtype=torch.bool)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        _ = mask_loss(head(regions)[None], labels, wanted, counted).value.backward()
        _ = optimizer.step()
    found = of_class(head(regions)[None], labels) > 0
    assert (found & wanted).sum() / (found | wanted).sum() > 0.95


# Prediction


@pytest.mark.parametrize(("layout", "side"), [("fpn", 28), ("c4", 14)])
def test_each_detection_has_the_mask_of_its_class_and_padding_none(layout: str, side: int) -> None:
    model = model_of(layout, "model.rpn.proposals_test=5", "model.box_head.detections=16").eval()  # at most 5 x 3
    detections = model.predict(batch())
    masks, valid = detections.masks, detections.valid
    assert masks is not None
    assert masks.shape == (3, 16, side, side)
    assert valid.any()
    assert not valid.all()
    assert not masks[~valid].any()
    assert ((masks[valid] > 0) & (masks[valid] < 1)).all()

    features = model.neck(model.backbone(model.normalized(batch())))
    logits = head_of(model)(heads_of(model).mask_regions(features, detections.boxes)).unflatten(0, (3, 16))
    image, slot = (int(place[0]) for place in torch.where(valid))
    label = detections.labels[image, slot]
    assert_close(masks[image, slot], logits[image, slot, label].sigmoid())


def test_without_a_head_there_are_no_masks() -> None:
    model = build_model(config_of("fpn", "model.mask_head=null"), CLASSES)
    assert model.eval().predict(batch()).masks is None
    assert "loss_mask" not in model(batch())


def test_masks_of_an_image_do_not_depend_on_its_neighbours() -> None:
    model, given = model_of("fpn").eval(), batch()
    together = model.predict(given).masks
    assert together is not None
    for image in range(3):
        alone = model.predict(Batch(given.images[image : image + 1], given.sizes[image : image + 1])).masks
        assert_close(alone, together[image : image + 1], atol=1e-4, rtol=1e-4)


# Parts


def test_resolution_convolutions_and_masks_follow_the_config() -> None:
    with torch.device("meta"):
        fpn = head_of(build_model(config_of("fpn"), CLASSES))
        c4 = head_of(build_model(config_of("c4"), CLASSES))
        own = build_model(
            config_of("fpn", "model.mask_head={convs: 1, channels: 12, resolution: 7, norm: bn, class_agnostic: true}"),
            CLASSES,
        )
    assert [len(head.convs) for head in (fpn, c4, head_of(own))] == [4, 0, 1]
    assert (fpn.deconv.in_channels, c4.deconv.in_channels) == (8, 512)
    assert [head.predictor.out_channels for head in (fpn, c4, head_of(own))] == [CLASSES, CLASSES, 1]
    names = {name for name in head_of(own).state_dict() if "fcn" in name}
    assert names == {
        "mask_fcn1.weight",
        *(
            f"mask_fcn1.norm.{kind}"
            for kind in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        ),
    }
    masks = build_model(config_of("fpn", "model.mask_head.resolution=7"), CLASSES).eval().predict(batch()).masks
    assert masks is not None
    assert masks.shape[2:] == (14, 14)


def test_masks_on_fully_connected_layers_are_refused() -> None:
    with (
        torch.device("meta"),
        pytest.raises(UserError, match=r"vgg11 does not have.* or model.neck.name=fpn") as refusal,
    ):
        _ = build_model(config_of("c4", "model.backbone.name=vgg11", "model.backbone.norm=none"), CLASSES)
    assert "\n" not in str(refusal.value)
