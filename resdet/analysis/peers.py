"""The same detector as other libraries build it, to measure against."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from resdet.config import ModelConfig
from resdet.errors import UserError
from resdet.models.backbones import Backbone
from resdet.structures import Batch

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
NORMS: dict[str, Callable[..., nn.Module]] = {"frozen_bn": FrozenBatchNorm2d, "bn": nn.BatchNorm2d}


class TorchvisionPeer(nn.Module):
    """torchvision's Faster R-CNN with the backbone, sizes, proposal and sample counts of a resdet config.

    It takes our batches: images cut to their sizes and lists of targets are made outside the timed call by `inputs`.
    """

    def __init__(self, config: ModelConfig, num_classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        check_torchvision_has(config)
        name, norm = config.backbone.name, config.backbone.norm
        backbone = resnet_fpn_backbone(
            backbone_name=name,
            weights=None,
            norm_layer=NORMS[norm],
            trainable_layers=min(5, 5 - config.backbone.frozen_stages),
        )
        rpn, box = config.rpn, config.box_head
        assert box is not None
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

    def forward(self, images: list[torch.Tensor], targets: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        return self.detector(images, targets)

    def predict(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        return self.detector(images)

    @staticmethod
    def inputs(batch: Batch) -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]:
        """Images as floats in [0, 1], and targets whose labels leave 0 to the background."""
        assert batch.targets is not None
        images = [
            image[:, : int(size[0]), : int(size[1])].float() / 255
            for image, size in zip(batch.images, batch.sizes, strict=True)
        ]
        targets = [
            {"boxes": boxes[valid], "labels": labels[valid] + 1}
            for boxes, labels, valid in zip(batch.targets.boxes, batch.targets.labels, batch.targets.valid, strict=True)
        ]
        return images, targets


def check_torchvision_has(config: ModelConfig) -> None:
    """Raises UserError for a detector that torchvision's constructor does not build."""
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
    for key, (value, known) in wanted.items():
        if value not in known:
            raise UserError(f"torchvision has no detector with {key}={value}; to be compared it must be one of {known}")
