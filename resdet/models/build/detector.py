"""Builds a detector from a config, as one nested expression."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from pathlib import Path

from torch import nn

from resdet.config import ModelConfig, checked
from resdet.errors import UserError, row_of
from resdet.models.backbones import BACKBONES, Backbone, build_backbone
from resdet.models.backbones.resnet import ResNet
from resdet.models.backbones.vgg import VGG
from resdet.models.build.conventions import completed, normalize_as
from resdet.models.build.heads import build_box_heads, build_box_loss, build_roi_heads, norm_of
from resdet.models.necks import ConvLevels, FeaturePyramidNetwork, PathAggregationNetwork, SingleLevel, SubsampledLevel
from resdet.models.per_class_rpn import PerClassRPN
from resdet.models.rcnn import RCNN
from resdet.models.rpn import RPN, AnchorGenerator, ProposalLimits, RPNHead
from resdet.models.second_stage.box_head import BoxHead, C5BoxHead, TwoLayerBoxHead
from resdet.ops.matching import Matcher
from resdet.ops.sampling import BalancedSampler
from resdet.weights import load_backbone_weights
from resdet.weights.contract import WeightContract
from resdet.weights.detector import load_model_weights
from resdet.weights.published import open_weights

STRIDES = (4, 8, 16, 32)  # of C2..C5, which all layouts require
C4 = STRIDES.index(16)
VGG_DROPOUT = 0.5  # of fc6 and fc7 (Simonyan & Zisserman 2014, section 3.1)


def build_model(config: ModelConfig, num_classes: int) -> RCNN:
    """The detector that a config describes, for `num_classes` object classes, with its backbone's weights loaded.

    Raises UserError for parts that cannot be combined and for weights that do not fit the model.
    """
    config, _ = completed(checked(config), None, "the config")
    rpn = config.rpn
    if rpn.background_iou > rpn.foreground_iou:
        raise UserError(
            f"model.rpn.background_iou={rpn.background_iou:g} must not be above model.rpn.foreground_iou="
            f"{rpn.foreground_iou:g}: an anchor between them would be both"
        )
    layout = row_of(LAYOUTS, config.neck.name, "model.neck.name")(config)
    if rpn.per_class and config.box_head:
        raise UserError("model.rpn.per_class=true is a detector by itself; set model.box_head=null")
    first_stage = partial(PerClassRPN, num_classes=num_classes) if rpn.per_class else RPN
    per_cell = len(layout.anchor_sizes[0]) * len(config.anchors.ratios) * (num_classes if rpn.per_class else 1)
    contract, notes = _load_weights(layout, config)
    model = RCNN(
        layout.backbone,
        layout.neck,
        first_stage(
            RPNHead(layout.neck.channels, per_cell, convs=rpn.convs),
            AnchorGenerator(
                layout.anchor_sizes, config.anchors.ratios, layout.neck.strides, rounded=bool(config.anchors.rounded)
            ),
            matcher=Matcher(rpn.foreground_iou, rpn.background_iou, low_quality=True),
            sampler=BalancedSampler(rpn.batch_size_per_image, rpn.positive_fraction),
            nms_iou=rpn.nms_iou,
            box_loss=build_box_loss(rpn),
            box_loss_weight=rpn.box_loss_weight,
            cross_boundary=rpn.cross_boundary,
        ),
        build_roi_heads(config, layout.box_heads, layout.neck.channels, layout.pooled_strides, num_classes),
        pixel_mean=config.pixel_mean or layout.backbone.pixel_mean,
        pixel_std=config.pixel_std or layout.backbone.pixel_std,
        train_limits=ProposalLimits(rpn.pre_nms_train, rpn.proposals_train),
        test_limits=ProposalLimits(rpn.pre_nms_test, rpn.proposals_test),
        notes=notes,
    )
    normalize_as(model, config, contract)
    return model


def pretrained_detector(
    config: ModelConfig, file: Path, class_names: Sequence[str]
) -> tuple[RCNN, ModelConfig, tuple[str, ...]]:
    """A detector that starts from the weights of a whole detector and uses its conventions.

    Returns the detector, the config with these conventions written out, and lines about the loaded weights. Raises
    UserError for weights that do not fit, or whose conventions contradict the config.
    """
    weights = open_weights(file)
    config, taken = completed(config, weights.contract, str(file))
    model = build_model(without_weights(config), len(class_names))
    report = load_model_weights(model, weights, class_names=class_names)
    normalize_as(model, config, weights.contract)
    return model, config, (*report.details().splitlines(), *taken)


def without_weights(config: ModelConfig) -> ModelConfig:
    return replace(config, weights=None, backbone=replace(config.backbone, weights=None))


@dataclass(frozen=True)
class Layout:
    """The differences between the feature layouts: the maps that all regions share, and the layers that run on each
    region.
    """

    backbone: Backbone
    neck: FeaturePyramidNetwork | SingleLevel
    pooled_strides: tuple[int, ...]  # of the maps from which regions are pooled: the first maps of the neck
    anchor_sizes: list[list[float]]  # of each map of the neck
    box_heads: tuple[BoxHead, ...]  # the layers that run on each region, per stage of a cascade; none: the RPN alone
    pretrained: tuple[nn.Module, ...]  # the modules that `model.backbone.weights` fills


def pyramid(config: ModelConfig, network: type[FeaturePyramidNetwork]) -> Layout:
    """P2..P6 or P7; regions are pooled from P2..P5 (Lin et al. 2017)."""
    backbone = backbone_of(config)
    channels = config.neck.channels
    extra = SubsampledLevel() if config.neck.extra_levels == "pool" else ConvLevels(channels)
    neck = network(backbone.channels, backbone.strides, channels, extra=extra, norm=norm_of(config.neck.norm))
    if len(config.anchors.sizes) != len(neck.strides):
        raise UserError(
            f"model.anchors.sizes={config.anchors.sizes} must give one size for each of the {len(neck.strides)} levels "
            f"of {config.neck.name} (strides {', '.join(map(str, neck.strides))})"
        )
    sizes = [[size] for size in config.anchors.sizes]
    return Layout(backbone, neck, backbone.strides, sizes, build_box_heads(config, channels), (backbone,))


def _c4(config: ModelConfig) -> Layout:
    """conv1..conv4 are shared; conv5 (of a VGG: fc6 and fc7 behind conv5_3) runs on each region (Ren et al. 2015)."""
    backbone, box = backbone_of(config), config.box_head
    channels = backbone.channels
    if box and box.name != "two_fc":
        raise UserError(
            f"model.box_head.name={box.name} does not go with model.neck.name=c4, whose box head is the last layers of "
            "the backbone; leave it out"
        )
    heads: tuple[BoxHead, ...] = ()
    if isinstance(backbone, ResNet) and backbone.strides == STRIDES:
        conv5 = backbone.pop_c5(stride=1 if box and box.resolution < 14 else 2)
        heads = (C5BoxHead(conv5, channels[-1]),) if box else ()
    elif isinstance(backbone, VGG):
        heads = (TwoLayerBoxHead(channels[C4], box.resolution, box.fc_dim, dropout=VGG_DROPOUT),) if box else ()
    else:
        raise UserError(
            f"model.neck.name=c4 runs the last layers of the backbone on each region, which {config.backbone.name} "
            "does not offer; take a resnet, resnext, plain or vgg net, or model.neck.name=fpn"
        )
    neck = SingleLevel(C4, channels=channels[C4], stride=STRIDES[C4])
    return Layout(backbone, neck, neck.strides, [config.anchors.sizes], heads, (backbone, *heads))


def _dc5(config: ModelConfig) -> Layout:
    """conv5 is shared too, dilated so that it keeps the stride of 16 (Dai et al. 2017, "Deformable", section 3)."""
    name = config.backbone.name
    if name.startswith("timm/") or (name in BACKBONES and "dilated_c5" not in signature(BACKBONES[name]).parameters):
        raise UserError(
            f"model.neck.name=dc5 dilates the last stage of the backbone, which {name} does not offer; take a resnet, "
            "resnext or plain net, or model.neck.name=fpn"
        )
    backbone = backbone_of(config, dilated_c5=True)
    neck = SingleLevel(-1, channels=backbone.channels[-1], stride=backbone.strides[-1])
    heads = build_box_heads(config, neck.channels)
    return Layout(backbone, neck, neck.strides, [config.anchors.sizes], heads, (backbone,))


LAYOUTS: dict[str, Callable[[ModelConfig], Layout]] = {
    "fpn": partial(pyramid, network=FeaturePyramidNetwork),
    "pafpn": partial(pyramid, network=PathAggregationNetwork),
    "c4": _c4,
    "dc5": _dc5,
}


def backbone_of(config: ModelConfig, *, dilated_c5: bool = False) -> Backbone:
    backbone = config.backbone
    return build_backbone(
        backbone.name,
        norm=backbone.norm,
        width=backbone.width,
        frozen_stages=backbone.frozen_stages,
        dilated_c5=dilated_c5,
    )


def _load_weights(layout: Layout, config: ModelConfig) -> tuple[WeightContract | None, tuple[str, ...]]:
    """Fills the layout's backbone; the contract of what was loaded into it, and lines for a log.

    The mean and deviation of the config must be those that the weights declare.
    """
    spec = config.backbone.weights
    if not spec:
        return None, ()
    trunk, *heads = layout.pretrained
    report, contract = load_backbone_weights(trunk, spec, config.backbone.name, also=heads)
    _ = completed(config, contract.of_backbone(), f"model.backbone.weights={spec}")
    return contract, tuple(report.details().splitlines())
