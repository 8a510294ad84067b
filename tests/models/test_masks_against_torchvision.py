"""The oracle: torchvision's Mask R-CNN and ours with the same random weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torchvision.models import detection
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection import roi_heads as their_roi_heads

from resdet.config import ModelConfig, load_config
from resdet.models.build.detector import build_model
from resdet.models.losses import values
from resdet.models.rcnn import RCNN
from resdet.models.second_stage.roi_heads import RoIHeads
from resdet.ops.sampling import BalancedSampler
from resdet.structures import Batch, Proposals, Targets
from resdet.weights.convert import from_torchvision

V1, V2 = "maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"
CLASSES = 6  # without the background
SIZES = [(97, 131), (111, 190)]


def our_config(name: str) -> ModelConfig:
    """Torchvision's conventions, each by its key."""
    config = load_config(overrides=["model.mask_head.name=fcn"]).model
    assert config.box_head is not None
    assert config.mask_head is not None
    config.backbone.norm, config.backbone.frozen_stages = "bn", 0
    config.anchors.rounded = True
    config.rpn.pre_nms_test, config.rpn.proposals_test, config.box_head.detections = 200, 50, 20
    config.box_head.aligned = False
    if name == V2:
        config.neck.norm = config.box_head.norm = config.mask_head.norm = "bn"
        config.rpn.convs, config.box_head.name = 2, "four_conv_fc"
    return config


@pytest.fixture(scope="module", params=[V1, V2])
def models(request: pytest.FixtureRequest, torchvision_model: Callable[..., MaskRCNN]) -> tuple[MaskRCNN, RCNN]:
    theirs = torchvision_model(
        request.param, num_classes=CLASSES + 1, rpn_pre_nms_top_n_test=200, rpn_post_nms_top_n_test=50,
        box_detections_per_img=20,
    )  # fmt: skip
    ours = build_model(our_config(request.param), CLASSES).eval()
    _ = ours.load_state_dict(from_torchvision(theirs.state_dict(), request.param).state, strict=True)
    return theirs, ours


def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, *size, generator=generator) for size in SIZES]


def as_batch(theirs: MaskRCNN, targets: Targets | None = None) -> Batch:
    """Their padding, our pixel range; they resize inside the model, which is switched off here."""
    return Batch(padded(theirs, images()) * 255, torch.tensor(SIZES), targets)


def padded(theirs: MaskRCNN, images: list[Tensor]) -> Tensor:
    return theirs.transform.batch_images(  # pyright: ignore[reportCallIssue]
        images, size_divisible=theirs.transform.size_divisible
    )


def their_features(theirs: MaskRCNN) -> dict[str, Tensor]:
    normalized = [theirs.transform.normalize(image) for image in images()]  # pyright: ignore[reportCallIssue]
    return theirs.backbone(padded(theirs, normalized))


def our_features(ours: RCNN, batch: Batch) -> list[Tensor]:
    return ours.neck(ours.backbone(ours.normalized(batch)))


@torch.no_grad()
def test_same_weights_give_the_same_masks(models: tuple[MaskRCNN, RCNN]) -> None:
    """Probabilities to 1e-4, before they are cut at 0.5 and pasted, from image to mask."""
    theirs, ours = models
    batch, maps = as_batch(theirs), their_features(theirs)
    detections = ours.predict(batch)
    assert detections.masks is not None

    features = our_features(ours, batch)
    proposals = ours.rpn.proposals(ours.rpn(features), batch.sizes, ours.test_limits)
    boxes = [box[real] for box, real in zip(proposals.boxes, proposals.valid, strict=True)]
    expected, _ = theirs.roi_heads(maps, boxes, SIZES)
    for image, wanted in enumerate(expected):
        real = detections.valid[image]
        assert real.sum() > 5, "the weights must give something to compare"
        assert wanted["masks"].std() > 0.1, "and masks that differ"
        assert_close(detections.labels[image][real], wanted["labels"] - 1)
        assert_close(detections.boxes[image][real], wanted["boxes"], atol=0.01, rtol=0)
        assert_close(detections.masks[image][real], wanted["masks"][:, 0], atol=1e-4, rtol=0)


def ground_truth() -> tuple[Targets, list[dict[str, Tensor]]]:
    """A full box and a left half in the first image, a lower half in the second: in frames, and as images.

    Boxes have sides of a multiple of 8 pixels, so that both say the same.
    """
    boxes = torch.zeros(2, 4, 4)
    boxes[0, :2] = torch.tensor([[8.0, 10, 72, 90], [50, 5, 114, 69]])
    boxes[1, :1] = torch.tensor([[16.0, 30, 144, 94]])
    labels = torch.tensor([[2, 0, 0, 0], [5, 0, 0, 0]])
    valid = torch.tensor([[True, True, False, False], [True, False, False, False]])
    masks = torch.zeros(2, 4, 8, 8, dtype=torch.uint8)
    masks[0, 0] = masks[0, 1, :, :4] = masks[1, 0, 4:] = 255
    whole = [torch.zeros(2, *SIZES[0], dtype=torch.uint8), torch.zeros(1, *SIZES[1], dtype=torch.uint8)]
    whole[0][0, 10:90, 8:72] = whole[0][1, 5:69, 50:82] = whole[1][0, 62:94, 16:144] = 1
    targets = Targets(boxes, labels, torch.zeros_like(valid), valid, torch.arange(2), masks)
    theirs = [
        {"boxes": b[v], "labels": c[v] + 1, "masks": m} for b, c, v, m in zip(boxes, labels, valid, whole, strict=True)
    ]
    return targets, theirs


def binary_targets(masks: Tensor, boxes: Tensor, matched: Tensor, resolution: int) -> Tensor:
    """What their crop would be with the paper's binary targets, and samples in the middle of the pixels they are of."""
    soft = their_roi_heads.roi_align(
        masks[:, None].to(boxes),
        torch.cat([matched[:, None].to(boxes), boxes], 1),
        (resolution, resolution),
        1.0,
        0,
        True,
    )
    return (soft[:, 0] >= 0.5 - 1e-3).to(boxes)


@pytest.mark.parametrize("models", [V1], indirect=True)  # without batch norm in the heads, which training would move
def test_the_loss_of_the_same_samples_is_equal(models: tuple[MaskRCNN, RCNN], monkeypatch: pytest.MonkeyPatch) -> None:
    """Both samplers take all candidates. Theirs learns from soft targets half a pixel off: it is given binary ones."""
    theirs, ours = models
    heads = ours.roi_heads
    assert isinstance(heads, RoIHeads)
    targets, their_targets = ground_truth()
    batch, maps = as_batch(theirs, targets), their_features(theirs)
    corner = targets.boxes[:, :3].repeat_interleave(3, 1)
    jitter = torch.randint(-6, 7, corner.shape, generator=torch.Generator().manual_seed(2)).float()
    boxes = (corner + jitter).clamp(min=0) * torch.tensor([[1.0] * 6 + [0] * 3, [1.0] * 3 + [0] * 6])[..., None]
    proposals = Proposals(boxes, torch.zeros(2, 9), boxes.any(-1))

    everything = 10**6
    monkeypatch.setattr(theirs.roi_heads.fg_bg_sampler, "batch_size_per_image", everything)
    monkeypatch.setattr(theirs.roi_heads.fg_bg_sampler, "positive_fraction", 1.0)
    monkeypatch.setattr(heads, "sampler", BalancedSampler(everything, 1.0))
    monkeypatch.setattr(their_roi_heads, "project_masks_on_boxes", binary_targets)
    _ = theirs.roi_heads.train()
    try:
        given = [box[real] for box, real in zip(proposals.boxes, proposals.valid, strict=True)]
        _, expected = theirs.roi_heads(maps, given, SIZES, their_targets)
    finally:
        _ = theirs.eval()
    losses = values(heads.losses(our_features(ours, batch), proposals, targets, batch.sizes))
    assert expected["loss_mask"] > 0.5
    assert_close(losses["loss_mask"], expected["loss_mask"], atol=1e-5, rtol=1e-5)


def test_ours_has_the_parameters_that_torchvision_states() -> None:
    """All but the background's rows, which theirs has and does not use: four of boxes and one of masks."""
    with torch.device("meta"):
        ours = build_model(load_config(overrides=["model.mask_head.name=fcn"]).model, 91 - 1)
    stated = detection.MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["num_params"]
    assert sum(p.numel() for p in ours.parameters()) == stated - 4 * (1024 + 1) - (256 + 1)
