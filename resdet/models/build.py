"""From a config to a detector, as one nested expression: the only file of this floor that reads a config."""

from __future__ import annotations

from resdet.config import ModelConfig
from resdet.errors import UserError
from resdet.models.backbones import build_backbone
from resdet.models.box_head import BoxPredictor, TwoLayerBoxHead
from resdet.models.fpn import FeaturePyramidNetwork
from resdet.models.rcnn import RCNN
from resdet.models.roi_heads import DetectionLimits, RoIHeads, RoIPooler
from resdet.models.rpn import RPN, AnchorGenerator, ProposalLimits, RPNHead
from resdet.ops.matching import Matcher
from resdet.ops.sampling import BalancedSampler


def build_model(config: ModelConfig, num_classes: int) -> RCNN:
    """The detector that a config describes, for `num_classes` kinds of object."""
    backbone = build_backbone(
        config.backbone.name, norm=config.backbone.norm, frozen_stages=config.backbone.frozen_stages
    )
    neck = FeaturePyramidNetwork(backbone.channels, backbone.strides, config.neck.channels)
    anchors, rpn, box = config.anchors, config.rpn, config.box_head
    if len(anchors.sizes) != len(neck.strides):
        raise UserError(
            f"model.anchors.sizes={anchors.sizes} must give one size for each of the {len(neck.strides)} levels "
            f"of {config.neck.name} (strides {', '.join(map(str, neck.strides))})"
        )
    return RCNN(
        backbone,
        neck,
        RPN(
            RPNHead(neck.channels, len(anchors.ratios)),
            AnchorGenerator([[size] for size in anchors.sizes], anchors.ratios, neck.strides, rounded=anchors.rounded),
            matcher=Matcher(rpn.foreground_iou, rpn.background_iou, low_quality=True),
            sampler=BalancedSampler(rpn.batch_size_per_image, rpn.positive_fraction),
            nms_iou=rpn.nms_iou,
            smooth_l1_beta=rpn.smooth_l1_beta,
        ),
        RoIHeads(
            RoIPooler(
                backbone.strides,
                resolution=box.resolution,
                sampling_ratio=box.sampling_ratio,
                aligned=box.aligned,
            ),
            TwoLayerBoxHead(neck.channels, box.resolution, box.fc_dim),
            BoxPredictor(box.fc_dim, num_classes),
            matcher=Matcher(box.foreground_iou, box.foreground_iou),
            sampler=BalancedSampler(box.batch_size_per_image, box.positive_fraction),
            limits=DetectionLimits(box.score_threshold, box.nms_iou, box.detections),
            smooth_l1_beta=box.smooth_l1_beta,
        ),
        pixel_mean=config.pixel_mean,
        pixel_std=config.pixel_std,
        train_limits=ProposalLimits(rpn.pre_nms_train, rpn.proposals_train),
        test_limits=ProposalLimits(rpn.pre_nms_test, rpn.proposals_test),
    )
