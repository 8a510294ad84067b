"""The per-class RPN: with one class it is the RPN, and with several each class has its own scores and boxes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from resdet.config import ModelConfig, load_config
from resdet.errors import UserError
from resdet.models.build.detector import build_model
from resdet.models.per_class_rpn import PerClassRPN
from resdet.models.rcnn import RCNN
from resdet.structures import Batch, Targets

SMALL = [
    "model.backbone={name: nano, norm: gn, frozen_stages: 0}",
    "model.neck.channels=8",
    "model.anchors.sizes=[16, 32, 64, 128, 256]",
    "model.rpn={batch_size_per_image: 8, positive_fraction: 0.5, proposals_test: 30, nms_iou: 0.5}",
    "model.box_head=null",
]


def small(*overrides: str) -> ModelConfig:
    return load_config(overrides=[*SMALL, *overrides]).model


def per_class(classes: int) -> tuple[RCNN, PerClassRPN]:
    _ = torch.manual_seed(0)
    model = build_model(small("model.rpn.per_class=true"), classes)
    assert isinstance(model.rpn, PerClassRPN)
    return model, model.rpn


def batch(label: int = 0) -> Batch:
    images = torch.randint(0, 256, (2, 3, 64, 96), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    boxes = torch.tensor([[[10.0, 10, 42, 42]], [[50, 20, 90, 60]]])
    valid = torch.ones(2, 1, dtype=torch.bool)
    targets = Targets(boxes, torch.full((2, 1), label), ~valid, valid, torch.tensor([1, 2]))
    return Batch(images, torch.tensor([[64, 96]] * 2), targets)


def test_with_a_single_class_it_is_the_rpn() -> None:
    """Same parameters, losses and boxes; NMS counts over all levels instead of within each."""
    ours, rpn = per_class(1)
    plain = build_model(small(), 1)
    _ = plain.load_state_dict(ours.state_dict())
    assert_close(ours(batch()), plain(batch()))
    assert torch.equal(rpn.anchors([torch.zeros(1, 8, 16, 24)] * 5), plain.rpn.anchors([torch.zeros(1, 8, 16, 24)] * 5))


def test_each_anchor_has_k_scores_and_k_boxes() -> None:
    model, rpn = per_class(5)
    features = model.neck(model.backbone(model.normalized(batch())))
    output = rpn(features)
    cells = sum(feature.shape[2] * feature.shape[3] for feature in features)
    assert output.logits.shape == (2, cells * 3 * 5)
    assert torch.equal(output.anchors.unflatten(0, (-1, 5))[:, 0], output.anchors.unflatten(0, (-1, 5))[:, 4])


@pytest.mark.parametrize("label", [0, 3])
def test_the_loss_by_hand(label: int) -> None:
    """With zero weights every class of every sampled anchor has log 2; its gradient pushes up the class alone that is
    there, and moves the boxes of that class alone.
    """
    model, rpn = per_class(5)
    for layer in (rpn.head.cls_logits, rpn.head.bbox_pred):
        _ = torch.nn.init.zeros_(layer.weight)
    losses = model(batch(label))
    assert_close(losses["loss_objectness"], 5 * torch.tensor(2.0).log())
    _ = torch.stack(list(losses.values())).sum().backward()

    def of_classes(gradient: Tensor | None) -> Tensor:
        assert gradient is not None
        return gradient.view(3, 5, -1)  # anchors of a cell, classes

    scores, boxes = of_classes(rpn.head.cls_logits.bias.grad), of_classes(rpn.head.bbox_pred.bias.grad)  # pyright: ignore
    others = torch.arange(5) != label
    assert (scores[:, others] >= 0).all()
    assert scores[:, label].sum() < scores[:, others].sum() / 4
    assert boxes[:, label].abs().sum() > 0
    assert not boxes[:, others].any()


def test_detections_are_of_all_classes_best_first_and_overlap_little_within_a_class() -> None:
    from torchvision.ops import box_iou

    model, rpn = per_class(3)
    _ = torch.nn.init.normal_(rpn.head.cls_logits.weight, std=0.5)
    found = model.eval().predict(batch())
    assert found.boxes.shape == (2, 30, 4)
    assert found.valid.any(1).all()
    for image in range(2):
        real = found.valid[image]
        boxes, scores, labels = found.boxes[image][real], found.scores[image][real], found.labels[image][real]
        assert (scores.diff() <= 0).all()
        assert len(labels.unique()) > 1
        for label in labels.unique():
            own = boxes[labels == label]
            assert (box_iou(own, own).fill_diagonal_(0) <= 0.5 + 1e-5).all()


def test_it_is_a_detector_without_a_second_stage() -> None:
    with pytest.raises(
        UserError, match=r"model\.rpn\.per_class=true is a detector by itself; set model\.box_head=null"
    ):
        _ = build_model(load_config(overrides=["model.rpn.per_class=true"]).model, 2)
