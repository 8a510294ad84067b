"""Builds the second stage of a detector from a config: box heads, mask heads and their losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import nn

from resdet.config import BoxHeadConfig, CascadeConfig, ModelConfig, RPNConfig
from resdet.errors import UserError, row_of
from resdet.models.backbones.norms import NORMS
from resdet.models.losses import (
    BoxLoss,
    ClassificationLoss,
    RegionLoss,
    ciou_box_loss,
    giou_box_loss,
    smooth_l1_box_loss,
)
from resdet.models.second_stage.box_head import BoxHead, BoxPredictor, FourConvBoxHead, TwoLayerBoxHead
from resdet.models.second_stage.detections import DetectionLimits
from resdet.models.second_stage.mask_head import MaskHead
from resdet.models.second_stage.roi_heads import RoIHeads, Stage
from resdet.models.second_stage.roi_pooler import Pooling, RoIPooler
from resdet.ops.box_coder import BoxCoder
from resdet.ops.matching import Matcher
from resdet.ops.roi_align import roi_align
from resdet.ops.roi_kernels import roi_pool
from resdet.ops.sampling import BalancedSampler

# of a single stage: targets with a standard deviation near one (Girshick's code)
DELTA_WEIGHTS = [10.0, 10.0, 5.0, 5.0]

# The box losses for the deltas of a stage, from the config of that stage.
BOX_LOSSES: dict[str, Callable[[RPNConfig | BoxHeadConfig], BoxLoss]] = {
    "smooth_l1": lambda config: partial(smooth_l1_box_loss, beta=config.smooth_l1_beta),
    "giou": lambda config: giou_box_loss,
    "ciou": lambda config: ciou_box_loss,
}

# The layers that run on each region, from the config and the channels of the maps from which regions are pooled.
BOX_HEADS: dict[str, Callable[[BoxHeadConfig, int], BoxHead]] = {
    "two_fc": lambda box, channels: TwoLayerBoxHead(channels, box.resolution, box.fc_dim),
    "four_conv_fc": lambda box, channels: FourConvBoxHead(channels, box.resolution, box.fc_dim, norm=norm_of(box.norm)),
}


def build_roi_heads(
    config: ModelConfig, box_heads: Sequence[BoxHead], channels: int, strides: Sequence[int], num_classes: int
) -> RoIHeads | None:
    """The second stage on maps of some channels and strides, with one stage for each box head; None without a box head.

    Raises UserError for parts that cannot be combined.
    """
    box, cascade = config.box_head, config.cascade
    if box is None:
        if config.mask_head or cascade:
            part = "mask_head" if config.mask_head else "cascade"
            raise UserError(
                f"model.{part} needs the box head that model.box_head=null leaves out; set model.{part}=null"
            )
        return None
    _check_cascade(config)
    return RoIHeads(
        RoIPooler(strides, _pooling(box)),
        _stages(box, cascade, box_heads, num_classes),
        sampler=BalancedSampler(box.batch_size_per_image, box.positive_fraction),
        limits=DetectionLimits(box.score_threshold, box.nms_iou, box.detections),
        region_loss=_region_loss(box, num_classes),
        global_context=box.global_context,
        mask_head=_mask_head(config, box_heads[0], channels, num_classes),
        mask_pooler=_mask_pooler(config, strides),
    )


def _stages(
    box: BoxHeadConfig, cascade: CascadeConfig | None, box_heads: Sequence[BoxHead], num_classes: int
) -> list[Stage]:
    """The stages of a cascade, or the single stage without a cascade."""
    ious = cascade.ious if cascade else [box.foreground_iou]
    matchers = [_first_matcher(box, cascade), *(Matcher(iou, iou) for iou in ious[1:])]
    weights = cascade.delta_weights if cascade else [DELTA_WEIGHTS]
    agnostic = box.class_agnostic or cascade is not None
    vectors = 2 if box.global_context else 1
    return [
        Stage(
            head,
            BoxPredictor(head.out_channels * vectors, num_classes, class_agnostic=agnostic),
            matcher,
            BoxCoder((dx, dy, dw, dh)),
        )
        for head, matcher, (dx, dy, dw, dh) in zip(box_heads, matchers, weights, strict=True)
    ]


def build_box_heads(config: ModelConfig, channels: int) -> tuple[BoxHead, ...]:
    """One head for each stage of a cascade, one head without a cascade, none without a box head."""
    box = config.box_head
    if box is None:
        return ()
    head = row_of(BOX_HEADS, box.name, "model.box_head.name")
    return tuple(head(box, channels) for _ in range(stages_of(config)))


def stages_of(config: ModelConfig) -> int:
    return 1 if config.cascade is None else len(config.cascade.ious)


def _first_matcher(box: BoxHeadConfig, cascade: CascadeConfig | None) -> Matcher:
    """The matcher of proposals and ground truth for the (first) box head."""
    iou = cascade.ious[0] if cascade else box.foreground_iou
    if box.background_iou_low >= iou:
        name = "model.cascade.ious[0]" if cascade else "model.box_head.foreground_iou"
        raise UserError(
            f"model.box_head.background_iou_low={box.background_iou_low:g} must be below {name}={iou:g}: nothing would "
            "be background"
        )
    return Matcher(iou, iou, background_iou_low=box.background_iou_low)


def _check_cascade(config: ModelConfig) -> None:
    cascade, box = config.cascade, config.box_head
    if cascade is None or box is None:
        return
    if config.neck.name == "c4":
        raise UserError(
            "model.cascade does not go with model.neck.name=c4, whose box head is the one conv5 of the backbone; take "
            "model.neck.name=fpn"
        )
    _check_stages(cascade)


def _check_stages(cascade: CascadeConfig) -> None:
    if len(cascade.ious) != len(cascade.delta_weights):
        raise UserError(
            f"model.cascade.ious has {len(cascade.ious)} stages and model.cascade.delta_weights "
            f"{len(cascade.delta_weights)}; give both for each stage"
        )
    if cascade.ious != sorted(cascade.ious):
        raise UserError(
            f"model.cascade.ious={cascade.ious}: a stage asks for no less overlap than the one before; write "
            f"{sorted(cascade.ious)}"
        )


def build_box_loss(config: RPNConfig | BoxHeadConfig) -> BoxLoss:
    """The loss of deltas for a stage of the detector, from its config."""
    part = "rpn" if isinstance(config, RPNConfig) else "box_head"
    return row_of(BOX_LOSSES, config.box_loss, f"model.{part}.box_loss")(config)


def _region_loss(box: BoxHeadConfig, num_classes: int) -> RegionLoss:
    weights = box.class_weights
    if weights is not None and len(weights) not in (num_classes, num_classes + 1):
        raise UserError(
            f"model.box_head.class_weights has {len(weights)} numbers for {num_classes} classes; give one for each "
            f"class, or {num_classes + 1} with that of the background last"
        )
    if weights is not None and not any(weights[:num_classes]):
        raise UserError(
            f"model.box_head.class_weights={weights}: no class would be learned; give at least one a number above 0"
        )
    classification = ClassificationLoss(
        gamma=box.focal_gamma if box.classification_loss == "focal" else None,
        class_weights=None if weights is None else [*weights, 1.0][: num_classes + 1],
    )
    return RegionLoss(classification, build_box_loss(box), box_loss_weight=box.box_loss_weight)


def _mask_head(config: ModelConfig, box_head: BoxHead, channels: int, num_classes: int) -> MaskHead | None:
    """A mask head on its own pooled regions, or (C4) on the output of conv5 for each region."""
    mask = config.mask_head
    if mask is None:
        return None
    shared = config.neck.name == "c4"
    in_channels = box_head.map_channels if shared else channels
    if in_channels is None:
        raise UserError(
            f"model.mask_head.name={mask.name} with model.neck.name=c4 works on the maps of conv5, which "
            f"{config.backbone.name} does not have: it ends in fully connected layers; take a resnet, or "
            "model.neck.name=fpn"
        )
    return MaskHead(
        in_channels,
        1 if mask.class_agnostic else num_classes,
        convs=(0 if shared else 4) if mask.convs is None else mask.convs,
        channels=mask.channels or config.neck.channels,
        norm=norm_of(mask.norm),
    )


def _mask_pooler(config: ModelConfig, strides: Sequence[int]) -> RoIPooler | None:
    mask, box = config.mask_head, config.box_head
    if mask is None or box is None or config.neck.name == "c4":
        return None
    aligned = box.aligned
    assert mask.sampling_ratio is not None  # build_model completes the config
    assert aligned is not None
    pooling = partial(roi_align, resolution=mask.resolution, sampling_ratio=mask.sampling_ratio, aligned=aligned)
    return RoIPooler(strides, pooling)


def _pooling(box: BoxHeadConfig) -> Pooling:
    if box.pooling == "roi_pool":
        return partial(roi_pool, resolution=box.resolution)
    assert box.sampling_ratio is not None  # build_model completes the config
    assert box.aligned is not None
    return partial(roi_align, resolution=box.resolution, sampling_ratio=box.sampling_ratio, aligned=box.aligned)


def norm_of(name: str) -> Callable[[int], nn.Module] | None:
    """A function from a number of channels to a normalization layer; None for the name none."""
    return None if name == "none" else NORMS[name]
