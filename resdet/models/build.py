"""From a config to a detector, as one nested expression: the only file of this floor that reads a config."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from inspect import signature

from torch import nn

from resdet.config import BoxHeadConfig, ModelConfig, RPNConfig
from resdet.errors import UserError
from resdet.models.backbones import BACKBONES, Backbone, build_backbone
from resdet.models.backbones.norms import NORMS
from resdet.models.backbones.resnet import ResNet
from resdet.models.backbones.vgg import VGG
from resdet.models.box_head import BoxHead, BoxPredictor, C5BoxHead, FourConvBoxHead, TwoLayerBoxHead
from resdet.models.classifier import Classifier
from resdet.models.fpn import ConvLevels, FeaturePyramidNetwork, PathAggregationNetwork, SingleLevel, SubsampledLevel
from resdet.models.losses import (
    BoxLoss,
    ClassificationLoss,
    RegionLoss,
    ciou_box_loss,
    giou_box_loss,
    smooth_l1_box_loss,
)
from resdet.models.mask_head import MaskHead
from resdet.models.rcnn import RCNN
from resdet.models.roi_heads import DetectionLimits, Pooling, RoIHeads, RoIPooler
from resdet.models.rpn import RPN, AnchorGenerator, ProposalLimits, RPNHead
from resdet.models.weights import conflicts, load_backbone_weights
from resdet.ops.matching import Matcher
from resdet.ops.roi_align import roi_align
from resdet.ops.roi_kernels import roi_pool
from resdet.ops.sampling import BalancedSampler

STRIDES = (4, 8, 16, 32)  # of C2..C5, which the layouts are made for
C4 = STRIDES.index(16)
VGG_DROPOUT = 0.5  # of fc6 and fc7 (Simonyan & Zisserman 2014, section 3.1)


def build_model(config: ModelConfig, num_classes: int) -> RCNN:
    """The detector that a config describes, for `num_classes` kinds of object, with its backbone's weights loaded.

    Raises UserError for parts that do not fit together and for weights that do not fit the model.
    """
    layout = LAYOUTS[config.neck.name](config)
    weights = _load_weights(layout, config)
    rpn, box = config.rpn, config.box_head
    return RCNN(
        layout.backbone,
        layout.neck,
        RPN(
            RPNHead(layout.neck.channels, len(layout.anchor_sizes[0]) * len(config.anchors.ratios), convs=rpn.convs),
            AnchorGenerator(
                layout.anchor_sizes, config.anchors.ratios, layout.neck.strides, rounded=config.anchors.rounded
            ),
            matcher=Matcher(rpn.foreground_iou, rpn.background_iou, low_quality=True),
            sampler=BalancedSampler(rpn.batch_size_per_image, rpn.positive_fraction),
            nms_iou=rpn.nms_iou,
            box_loss=_box_loss(rpn),
            box_loss_weight=rpn.box_loss_weight,
            cross_boundary=rpn.cross_boundary,
        ),
        RoIHeads(
            RoIPooler(layout.pooled_strides, _pooling(config)),
            layout.box_head,
            BoxPredictor(
                layout.box_head.out_channels * (2 if box.global_context else 1),
                num_classes,
                class_agnostic=box.class_agnostic,
            ),
            matcher=Matcher(box.foreground_iou, box.foreground_iou, background_iou_low=box.background_iou_low),
            sampler=BalancedSampler(box.batch_size_per_image, box.positive_fraction),
            limits=DetectionLimits(box.score_threshold, box.nms_iou, box.detections),
            region_loss=_region_loss(box, num_classes),
            global_context=box.global_context,
            mask_head=_mask_head(layout, config, num_classes),
            mask_pooler=_mask_pooler(layout, config),
        ),
        pixel_mean=weights.pixel_mean,
        pixel_std=weights.pixel_std,
        train_limits=ProposalLimits(rpn.pre_nms_train, rpn.proposals_train),
        test_limits=ProposalLimits(rpn.pre_nms_test, rpn.proposals_test),
        notes=weights.notes,
    )


def build_classifier(config: ModelConfig, num_classes: int) -> Classifier:
    """The image classifier on the backbone that a config describes, from scratch.

    Raises UserError for `model.backbone.weights`, which are for detectors.
    """
    if config.backbone.weights:
        raise UserError(
            f"model.backbone.weights={config.backbone.weights}: a classifier starts from scratch, or as a whole from "
            "model.weights; leave it out"
        )
    backbone = _backbone(config)
    return Classifier(
        backbone,
        num_classes,
        pixel_mean=config.pixel_mean or backbone.pixel_mean,
        pixel_std=config.pixel_std or backbone.pixel_std,
    )


@dataclass(frozen=True)
class Layout:
    """What the feature layouts differ in: the maps that all regions share, and what runs on each region."""

    backbone: Backbone
    neck: FeaturePyramidNetwork | SingleLevel
    pooled_strides: tuple[int, ...]  # of the maps that regions are pooled from: the first ones of the neck
    anchor_sizes: list[list[float]]  # of each map of the neck
    box_head: BoxHead
    pretrained: tuple[nn.Module, ...]  # what `model.backbone.weights` fills


def _pyramid(config: ModelConfig, network: type[FeaturePyramidNetwork]) -> Layout:
    """P2..P6 or P7; regions are pooled from P2..P5 (Lin et al. 2017)."""
    backbone = _backbone(config)
    channels = config.neck.channels
    extra = SubsampledLevel() if config.neck.extra_levels == "pool" else ConvLevels(channels)
    neck = network(backbone.channels, backbone.strides, channels, extra=extra, norm=_norm(config.neck.norm))
    if len(config.anchors.sizes) != len(neck.strides):
        raise UserError(
            f"model.anchors.sizes={config.anchors.sizes} must give one size for each of the {len(neck.strides)} levels "
            f"of {config.neck.name} (strides {', '.join(map(str, neck.strides))})"
        )
    sizes = [[size] for size in config.anchors.sizes]
    return Layout(backbone, neck, backbone.strides, sizes, _box_head(config, channels), (backbone,))


def _c4(config: ModelConfig) -> Layout:
    """conv1..conv4 are shared; conv5 (of a VGG: fc6 and fc7 behind conv5_3) runs on each region (Ren et al. 2015)."""
    if config.box_head.name != "two_fc":
        raise UserError(
            f"model.box_head.name={config.box_head.name} does not go with model.neck.name=c4, whose box head is the "
            "last layers of the backbone; leave it out"
        )
    backbone = _backbone(config)
    channels, resolution = backbone.channels, config.box_head.resolution
    if isinstance(backbone, ResNet) and backbone.strides == STRIDES:
        head = C5BoxHead(backbone.pop_c5(stride=2 if resolution >= 14 else 1), channels[-1])
    elif isinstance(backbone, VGG):
        head = TwoLayerBoxHead(channels[C4], resolution, config.box_head.fc_dim, dropout=VGG_DROPOUT)
    else:
        raise UserError(
            f"model.neck.name=c4 runs the last layers of the backbone on each region, which {config.backbone.name} "
            "does not offer; take a resnet, resnext, plain or vgg net, or model.neck.name=fpn"
        )
    neck = SingleLevel(C4, channels=channels[C4], stride=STRIDES[C4])
    return Layout(backbone, neck, neck.strides, [config.anchors.sizes], head, (backbone, head))


def _dc5(config: ModelConfig) -> Layout:
    """conv5 is shared too, dilated so that it keeps the stride of 16 (Dai et al. 2017, "Deformable", section 3)."""
    name = config.backbone.name
    if name.startswith("timm/") or (name in BACKBONES and "dilated_c5" not in signature(BACKBONES[name]).parameters):
        raise UserError(
            f"model.neck.name=dc5 dilates the last stage of the backbone, which {name} does not offer; take a resnet, "
            "resnext or plain net, or model.neck.name=fpn"
        )
    backbone = _backbone(config, dilated_c5=True)
    neck = SingleLevel(-1, channels=backbone.channels[-1], stride=backbone.strides[-1])
    head = _box_head(config, neck.channels)
    return Layout(backbone, neck, neck.strides, [config.anchors.sizes], head, (backbone,))


BOX_LOSSES: dict[str, BoxLoss] = {"giou": giou_box_loss, "ciou": ciou_box_loss}  # smooth_l1 has a parameter


LAYOUTS: dict[str, Callable[[ModelConfig], Layout]] = {
    "fpn": partial(_pyramid, network=FeaturePyramidNetwork),
    "pafpn": partial(_pyramid, network=PathAggregationNetwork),
    "c4": _c4,
    "dc5": _dc5,
}


def _backbone(config: ModelConfig, *, dilated_c5: bool = False) -> Backbone:
    backbone = config.backbone
    return build_backbone(
        backbone.name, norm=backbone.norm, frozen_stages=backbone.frozen_stages, dilated_c5=dilated_c5
    )


def _norm(name: str) -> Callable[[int], nn.Module] | None:
    return None if name == "none" else NORMS[name]


def _box_head(config: ModelConfig, channels: int) -> TwoLayerBoxHead | FourConvBoxHead:
    box = config.box_head
    if box.name == "four_conv_fc":
        return FourConvBoxHead(channels, box.resolution, box.fc_dim, norm=_norm(box.norm))
    return TwoLayerBoxHead(channels, box.resolution, box.fc_dim)


def _box_loss(config: RPNConfig | BoxHeadConfig) -> BoxLoss:
    return BOX_LOSSES.get(config.box_loss) or partial(smooth_l1_box_loss, beta=config.smooth_l1_beta)


def _region_loss(box: BoxHeadConfig, num_classes: int) -> RegionLoss:
    weights = box.class_weights
    if weights is not None and len(weights) not in (num_classes, num_classes + 1):
        raise UserError(
            f"model.box_head.class_weights has {len(weights)} numbers for {num_classes} classes; give one for each "
            f"class, or {num_classes + 1} with that of the background last"
        )
    classification = ClassificationLoss(
        gamma=box.focal_gamma if box.classification_loss == "focal" else None,
        class_weights=None if weights is None else [*weights, 1.0][: num_classes + 1],
    )
    return RegionLoss(classification, _box_loss(box), box_loss_weight=box.box_loss_weight)


def _mask_head(layout: Layout, config: ModelConfig, num_classes: int) -> MaskHead | None:
    """On regions of its own, or (C4) on what conv5 makes of a region."""
    mask = config.mask_head
    if mask is None:
        return None
    shared = config.neck.name == "c4"
    if shared and not isinstance(layout.box_head, C5BoxHead):
        raise UserError(
            f"model.mask_head.name={mask.name} with model.neck.name=c4 works on the maps of conv5, which "
            f"{config.backbone.name} does not have: it ends in fully connected layers; take a resnet, or "
            "model.neck.name=fpn"
        )
    return MaskHead(
        layout.box_head.out_channels if shared else layout.neck.channels,
        1 if mask.class_agnostic else num_classes,
        convs=(0 if shared else 4) if mask.convs is None else mask.convs,
        channels=mask.channels,
        norm=_norm(mask.norm),
    )


def _mask_pooler(layout: Layout, config: ModelConfig) -> RoIPooler | None:
    mask = config.mask_head
    if mask is None or config.neck.name == "c4":
        return None
    aligned = config.box_head.aligned
    pooling = partial(roi_align, resolution=mask.resolution, sampling_ratio=mask.sampling_ratio, aligned=aligned)
    return RoIPooler(layout.pooled_strides, pooling)


def _pooling(config: ModelConfig) -> Pooling:
    box = config.box_head
    if box.pooling == "roi_pool":
        return partial(roi_pool, resolution=box.resolution)
    return partial(roi_align, resolution=box.resolution, sampling_ratio=box.sampling_ratio, aligned=box.aligned)


@dataclass(frozen=True)
class LoadedWeights:
    """How images have to be normalised for the backbone, and what was loaded into it (lines for a log)."""

    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    notes: tuple[str, ...]


def _load_weights(layout: Layout, config: ModelConfig) -> LoadedWeights:
    """Fills the layout's backbone. The mean and deviation of the config must be those that the weights declare."""
    mean, std = config.pixel_mean, config.pixel_std
    if config.backbone.weights is None:
        ours = layout.backbone
        return LoadedWeights(tuple(mean or ours.pixel_mean), tuple(std or ours.pixel_std), ())
    trunk, *heads = layout.pretrained
    report, contract = load_backbone_weights(trunk, config.backbone.weights, config.backbone.name, also=heads)
    if differences := conflicts(contract, pixel_mean=mean, pixel_std=std):
        raise UserError(
            f"model.backbone.weights={config.backbone.weights}: {'; '.join(differences)}; leave model.pixel_mean and "
            "model.pixel_std out, for they follow from the weights"
        )
    return LoadedWeights(contract.pixel_mean, contract.pixel_std, tuple(report.details().splitlines()))
