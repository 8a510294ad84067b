"""What the values of a configuration may be, beyond their types."""

from __future__ import annotations

import math
from typing import Any

from resdet.config.tree import Config
from resdet.errors import UserError, did_you_mean

CHOICES = {
    "task": ("detection", "classification"),
    "model.backbone.norm": ("frozen_bn", "bn", "sync_bn", "gn", "none"),
    "model.neck.norm": ("none", "bn", "sync_bn", "gn"),
    "model.neck.extra_levels": ("pool", "conv"),
    "model.box_head.norm": ("none", "bn", "sync_bn", "gn"),
    "model.box_head.pooling": ("roi_align", "roi_pool"),
    "model.box_head.classification_loss": ("cross_entropy", "focal"),
    "model.mask_head.name": ("fcn",),
    "model.mask_head.norm": ("none", "bn", "sync_bn", "gn"),
    "train.device": ("auto", "cpu", "cuda"),
    "train.amp": ("auto", "off", "bf16", "native"),
    "optim.name": ("sgd", "adamw"),
    "optim.schedule": ("step", "cosine", "constant"),
    "eval.backend": ("auto", "pycocotools", "hotcoco"),
    "eval.metric": ("coco", "voc07", "voc12"),
    "data.on_bad_image": ("error", "skip"),
    "data.sixteen_bit": ("error", "scale"),
}

BOUNDS = {
    (1, math.inf): (
        "train.steps train.batch_size train.log_every train.checkpoint_every train.keep_checkpoints eval.batch_size "
        "optim.reference_batch model.neck.channels model.rpn.batch_size_per_image model.rpn.pre_nms_train "
        "model.rpn.pre_nms_test model.rpn.proposals_train model.rpn.proposals_test model.box_head.resolution "
        "model.box_head.batch_size_per_image model.box_head.detections model.box_head.fc_dim data.augment.short_side "
        "data.augment.max_side data.augment.test_short_side data.shapes.train_images data.shapes.val_images "
        "data.shapes.max_objects model.num_classes model.anchors.sizes model.rpn.convs "
        "model.mask_head.channels model.mask_head.resolution data.patches.train_images data.patches.val_images "
        "test.scales test.augmentation.short_sides"
    ),
    (0, 1): (
        "model.rpn.positive_fraction model.rpn.foreground_iou model.rpn.background_iou model.rpn.nms_iou "
        "model.box_head.positive_fraction model.box_head.foreground_iou model.box_head.background_iou_low "
        "model.box_head.score_threshold model.box_head.nms_iou model.cascade.ious data.augment.flip "
        "data.augment.photometric data.max_bad_fraction optim.milestones optim.momentum optim.gamma "
        "optim.warmup_factor optim.layer_decay test.refinement.nms_iou test.voting.iou"
    ),
    (0, math.inf): (
        "optim.lr optim.weight_decay optim.norm_weight_decay optim.warmup_steps train.seed train.grad_clip eval.every "
        "data.workers model.backbone.frozen_stages model.box_head.sampling_ratio model.rpn.smooth_l1_beta "
        "model.rpn.box_loss_weight model.rpn.cross_boundary model.box_head.focal_gamma model.box_head.class_weights "
        "model.box_head.box_loss_weight model.box_head.smooth_l1_beta optim.backbone_lr train.precise_bn "
        "model.mask_head.convs model.mask_head.sampling_ratio data.augment.pad eval.train_images"
    ),
    (4, 1024): "data.mask_resolution",
    (64, math.inf): "data.shapes.size",
    (8, 256): "data.patches.size",
}


def check(config: Config) -> None:
    """Refuses values no run could mean, before anything is built."""
    for key, choices in CHOICES.items():
        value = _at(config, key)
        if value not in choices and not _absent(config, key):
            raise UserError(f"{key}={value} is not known{did_you_mean(str(value), choices)}")
    for (low, high), keys in BOUNDS.items():
        for key in keys.split():
            _check_bounds(key, _at(config, key), low, high)
    for key in ("data.augment.short_side", "model.anchors.sizes", "model.anchors.ratios"):
        if not _at(config, key):
            raise UserError(f"{key} is empty; give at least one value")


def _check_bounds(key: str, value: Any, low: int | float, high: int | float) -> None:
    """Holds for a number, for each number of a list, and for an absent value."""
    for number in value if isinstance(value, list) else [value]:
        if number is not None and not (low <= number <= high and math.isfinite(number)):
            upper = "" if high == math.inf else f" and at most {high}"
            raise UserError(f"{key}={value} must be a number of at least {low}{upper}")


def _at(config: Any, key: str) -> Any:
    """The value of a key; None where the part it belongs to is absent."""
    for name in key.split("."):
        if config is None:
            return None
        config = getattr(config, name)
    return config


def _absent(config: Config, key: str) -> bool:
    """Whether the part that a key belongs to is left out."""
    part = key.rpartition(".")[0]
    return bool(part) and _at(config, part) is None
