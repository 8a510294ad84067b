"""The same detector as another library builds it, as the reference for time measurements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from resdet.config import MaskHeadConfig, ModelConfig
from resdet.errors import UserError
from resdet.models.backbones import Backbone
from resdet.models.build.conventions import completed
from resdet.structures import Batch

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
NORMS: dict[str, Callable[..., nn.Module]] = {"frozen_bn": FrozenBatchNorm2d, "bn": nn.BatchNorm2d}


class TorchvisionPeer(nn.Module):
    """torchvision's Faster or Mask R-CNN with the backbone, sizes, proposal and sample counts of a resdet config.

    It takes our batches: images cut to their sizes and lists of targets are made outside the timed call by `inputs`.
    Masks stay in the cells of their boxes, as ours do: pasting them into the image is not part of a prediction.
    """

    def __init__(self, config: ModelConfig, num_classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        check_torchvision_has(config)
        config, _ = completed(config, None, "the config")
        name, norm = config.backbone.name, config.backbone.norm
        backbone = resnet_fpn_backbone(
            backbone_name=name,
            weights=None,
            norm_layer=NORMS[norm],
            trainable_layers=min(5, 5 - config.backbone.frozen_stages),
        )
        rpn, box = config.rpn, config.box_head
        assert box is not None
        assert box.sampling_ratio is not None, "completed above"
        self.detector = FasterRCNN(
            backbone,
            num_classes + 1,
            min_size=min(size),
            max_size=max(size),
            image_mean=[value / 255 for value in config.pixel_mean or Backbone.pixel_mean],
            image_std=[value / 255 for value in config.pixel_std or Backbone.pixel_std],
            rpn_anchor_generator=AnchorGenerator(
                tuple((int(anchor),) for anchor in config.anchors.sizes),
                (tuple(config.anchors.ratios),) * len(config.anchors.sizes),
            ),
            rpn_pre_nms_top_n_train=rpn.pre_nms_train,
            rpn_pre_nms_top_n_test=rpn.pre_nms_test,
            rpn_post_nms_top_n_train=rpn.proposals_train,
            rpn_post_nms_top_n_test=rpn.proposals_test,
            rpn_nms_thresh=rpn.nms_iou,
            rpn_batch_size_per_image=rpn.batch_size_per_image,
            box_roi_pool=MultiScaleRoIAlign(["0", "1", "2", "3"], box.resolution, box.sampling_ratio),
            box_score_thresh=box.score_threshold,
            box_nms_thresh=box.nms_iou,
            box_detections_per_img=box.detections,
            box_batch_size_per_image=box.batch_size_per_image,
            box_positive_fraction=box.positive_fraction,
        )
        if config.mask_head:
            _add_masks(self.detector, config.mask_head, num_classes)

    def forward(self, images: list[torch.Tensor], targets: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        return self.detector(images, targets)

    def predict(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        return self.detector(images)

    @staticmethod
    def inputs(batch: Batch) -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]:
        """Images as floats in [0, 1], and targets whose labels start at 1 because label 0 is the background."""
        assert batch.targets is not None
        images = [
            image[:, : int(size[0]), : int(size[1])].float() / 255
            for image, size in zip(batch.images, batch.sizes, strict=True)
        ]
        targets = [
            {"boxes": boxes[valid], "labels": labels[valid] + 1}
            for boxes, labels, valid in zip(batch.targets.boxes, batch.targets.labels, batch.targets.valid, strict=True)
        ]
        if batch.targets.masks is not None:
            for image, target in zip(images, targets, strict=True):
                target["masks"] = _filled(target["boxes"], image.shape[-2], image.shape[-1])
        return images, targets


def _add_masks(detector: FasterRCNN, mask: MaskHeadConfig, num_classes: int) -> None:
    """Adds to a Faster R-CNN the mask head, mask pooling and mask loss of torchvision's Mask R-CNN, without mask
    pasting.
    """
    roi_heads = detector.roi_heads
    assert isinstance(roi_heads, RoIHeads)
    assert mask.sampling_ratio is not None, "of a completed config"
    convs = 4 if mask.convs is None else mask.convs
    channels = 256  # the levels of its pyramid
    roi_heads.mask_roi_pool = MultiScaleRoIAlign(["0", "1", "2", "3"], mask.resolution, mask.sampling_ratio)
    width = mask.channels or channels
    roi_heads.mask_head = MaskRCNNHeads(channels, (width,) * convs, 1)
    roi_heads.mask_predictor = MaskRCNNPredictor(width if convs else channels, width, num_classes + 1)
    vars(detector.transform)["postprocess"] = _as_they_are


def _as_they_are(result: list[dict[str, torch.Tensor]], *_: Any) -> list[dict[str, torch.Tensor]]:
    """Replaces the postprocessing: images keep their size here, and masks are not pasted."""
    return result


def _filled(boxes: Float[torch.Tensor, "n 4"], height: int, width: int) -> UInt8[torch.Tensor, "n H W"]:
    """Masks over whole images, as torchvision expects them: every pixel inside a box is set."""
    x, y = torch.arange(width, device=boxes.device) + 0.5, torch.arange(height, device=boxes.device) + 0.5
    x1, y1, x2, y2 = boxes[..., None].unbind(1)
    rows, columns = (y > y1) & (y < y2), (x > x1) & (x < x2)
    return (rows[:, :, None] & columns[:, None, :]).to(torch.uint8)


def check_torchvision_has(config: ModelConfig) -> None:
    """Raises UserError for a detector that torchvision's constructor cannot build."""
    neck, box = config.neck, config.box_head
    if box is None:
        raise UserError("torchvision has no detector with model.box_head=null; give it a box head to compare")
    if config.cascade:
        raise UserError("torchvision has no detector with model.cascade; leave it out to compare")
    wanted = {
        "model.backbone.name": (config.backbone.name, RESNETS),
        "model.backbone.norm": (config.backbone.norm, tuple(NORMS)),
        "model.neck.name": (neck.name, ("fpn",)),
        "model.neck.norm": (neck.norm, ("none",)),
        "model.neck.extra_levels": (neck.extra_levels, ("pool",)),
        "model.rpn.convs": (config.rpn.convs, (1,)),
        "model.box_head.name": (box.name, ("two_fc",)),
        "model.box_head.pooling": (box.pooling, ("roi_align",)),
    }
    if config.mask_head:
        wanted |= {
            "model.mask_head.norm": (config.mask_head.norm, ("none",)),
            "model.mask_head.class_agnostic": (config.mask_head.class_agnostic, (False,)),
        }
    for key, (value, known) in wanted.items():
        if value not in known:
            raise UserError(f"torchvision has no detector with {key}={value}; to be compared it must be one of {known}")
