"""The oracle: torchvision's Faster R-CNN and ours with the same random weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.image_list import ImageList

from resdet.config import ModelConfig, load_config
from resdet.models.build.detector import build_model
from resdet.models.losses import values
from resdet.models.rcnn import RCNN
from resdet.ops.sampling import BalancedSampler
from resdet.structures import Batch, Detections, Proposals, Targets
from resdet.weights.convert import from_torchvision

V1, V2 = "fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2"
CLASSES = 6  # without the background
SIZES = [(97, 131), (128, 75), (111, 190)]


def torchvision_config(name: str = V1) -> ModelConfig:
    """Torchvision's conventions, each by its key."""
    config = load_config().model
    config.backbone.norm, config.backbone.frozen_stages = "bn", 0
    config.anchors.rounded = True
    config.rpn.pre_nms_test, config.rpn.proposals_test = 300, 150
    config.rpn.pre_nms_train, config.rpn.proposals_train = 300, 150
    assert config.box_head is not None
    config.rpn.smooth_l1_beta = config.box_head.smooth_l1_beta = 1 / 9
    config.box_head.aligned = False
    if name == V2:
        config.neck.norm = config.box_head.norm = "bn"
        config.rpn.convs, config.box_head.name = 2, "four_conv_fc"
    return config


@pytest.fixture(scope="module", params=[V1, V2])
def models(request: pytest.FixtureRequest, torchvision_model: Callable[..., FasterRCNN]) -> tuple[FasterRCNN, RCNN]:
    theirs = torchvision_model(
        request.param, num_classes=CLASSES + 1, rpn_pre_nms_top_n_test=300, rpn_post_nms_top_n_test=150,
        rpn_pre_nms_top_n_train=300, rpn_post_nms_top_n_train=150,
    )  # fmt: skip
    ours = build_model(torchvision_config(request.param), CLASSES).eval()
    _ = ours.load_state_dict(from_torchvision(theirs.state_dict(), request.param).state, strict=True)
    return theirs, ours


def images(*sizes: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, *size, generator=generator) for size in sizes]


def as_batch(theirs: FasterRCNN, images: list[Tensor], targets: Targets | None = None) -> Batch:
    """Their padding, our pixel range; they resize inside the model, which is switched off here."""
    padded = theirs.transform.batch_images(  # pyright: ignore[reportCallIssue]
        images, size_divisible=theirs.transform.size_divisible
    )
    return Batch(padded * 255, torch.tensor([image.shape[-2:] for image in images]), targets)


def their_features(theirs: FasterRCNN, images: list[Tensor]) -> tuple[ImageList, dict[str, Tensor]]:
    normalized = [theirs.transform.normalize(image) for image in images]  # pyright: ignore[reportCallIssue]
    padded = theirs.transform.batch_images(  # pyright: ignore[reportCallIssue]
        normalized, size_divisible=theirs.transform.size_divisible
    )
    return ImageList(padded, [(i.shape[-2], i.shape[-1]) for i in images]), theirs.backbone(padded)


@pytest.mark.parametrize("sizes", [SIZES, SIZES[:1], SIZES[2:]], ids=["three", "one", "another"])
@torch.no_grad()
def test_same_weights_give_the_same_proposals_and_detections(
    models: tuple[FasterRCNN, RCNN], sizes: list[tuple[int, int]]
) -> None:
    theirs, ours = models
    batch = as_batch(theirs, images(*sizes))
    padded, maps = their_features(theirs, images(*sizes))
    features = ours.neck(ours.backbone(ours.normalized(batch)))
    for mine, expected in zip(features, maps.values(), strict=True):
        assert_close(mine, expected, atol=1e-4, rtol=1e-4)

    their_proposals, _ = theirs.rpn(padded, maps)
    our_proposals = ours.rpn.proposals(ours.rpn(features), batch.sizes, ours.test_limits)
    for image, expected in enumerate(their_proposals):
        assert_close(our_proposals.boxes[image][our_proposals.valid[image]], expected, atol=0.01, rtol=0)

    their_detections, _ = theirs.roi_heads(maps, their_proposals, padded.image_sizes)
    assert_same_detections(ours.predict(batch), their_detections)


def assert_same_detections(ours: Detections, theirs: list[dict[str, Tensor]]) -> None:
    for image, expected in enumerate(theirs):
        assert len(expected["boxes"]) > 5, "the weights must give something to compare"
        real = ours.valid[image]
        assert_close(ours.labels[image][real], expected["labels"] - 1)
        assert_close(ours.boxes[image][real], expected["boxes"], atol=0.01, rtol=0)
        assert_close(ours.scores[image][real], expected["scores"], atol=1e-4, rtol=0)


def ground_truth() -> tuple[Targets, list[dict[str, Tensor]]]:
    """Three objects, one object and none."""
    boxes = torch.zeros(3, 8, 4)
    boxes[0, :3] = torch.tensor([[10.0, 10, 60, 70], [50, 5, 120, 90], [20, 40, 45, 80]])
    boxes[1, :1] = torch.tensor([[5.0, 30, 70, 110]])
    labels = torch.tensor([[2, 0, 5] + [0] * 5, [4] + [0] * 7, [0] * 8])
    valid = torch.tensor([[True] * 3 + [False] * 5, [True] + [False] * 7, [False] * 8])
    targets = Targets(boxes, labels, torch.zeros_like(valid), valid, torch.arange(3))
    return targets, [{"boxes": b[v], "labels": c[v] + 1} for b, c, v in zip(boxes, labels, valid, strict=True)]


@pytest.mark.parametrize("models", [V1], indirect=True)  # without batch norm in the heads, which training would move
def test_losses_of_the_same_samples_are_equal(models: tuple[FasterRCNN, RCNN], monkeypatch: pytest.MonkeyPatch) -> None:
    """Both samplers are given room for every candidate, so that both take all of them."""
    theirs, ours = models
    targets, their_targets = ground_truth()
    batch = as_batch(theirs, images(*SIZES), targets)
    padded, maps = their_features(theirs, images(*SIZES))

    everything = 10**6
    for part in (theirs.rpn, theirs.roi_heads):
        monkeypatch.setattr(part.fg_bg_sampler, "batch_size_per_image", everything)
        monkeypatch.setattr(part.fg_bg_sampler, "positive_fraction", 1.0)
    for part in (ours.rpn, ours.roi_heads):
        monkeypatch.setattr(part, "sampler", BalancedSampler(everything, 1.0))
    _ = theirs.rpn.train(), theirs.roi_heads.train()
    try:
        their_proposals, rpn_losses = theirs.rpn(padded, maps, their_targets)
        _, roi_losses = theirs.roi_heads(maps, their_proposals, padded.image_sizes, their_targets)
    finally:
        _ = theirs.eval()
    features = ours.neck(ours.backbone(ours.normalized(batch)))
    proposals = as_proposals(their_proposals)
    assert ours.roi_heads is not None
    first = ours.rpn.losses(ours.rpn(features), targets, batch.sizes)
    losses = values(first | ours.roi_heads.losses(features, proposals, targets, batch.sizes))
    for name, expected in (rpn_losses | roi_losses).items():
        assert_close(losses[name], expected, atol=1e-5, rtol=1e-5)


def as_proposals(boxes: list[Tensor]) -> Proposals:
    count = max(map(len, boxes))
    padded = torch.stack([torch.cat([b, b.new_zeros(count - len(b), 4)]) for b in boxes])
    valid = torch.stack([torch.arange(count) < len(b) for b in boxes])
    return Proposals(padded, torch.zeros(len(boxes), count), valid)
