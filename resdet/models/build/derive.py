"""Derives the config of a converted detector from the names and shapes of its tensors and from its contract."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from resdet.config import BoxHeadConfig, CascadeConfig, MaskHeadConfig, ModelConfig
from resdet.config.model import Norm
from resdet.errors import UserError
from resdet.models.backbones import BACKBONES, build_backbone
from resdet.models.build.conventions import completed
from resdet.models.build.detector import build_model
from resdet.weights.contract import WeightContract
from resdet.weights.convert.names import class_rows
from resdet.weights.coverage import without_counters

COUNTERS = "num_batches_tracked"  # of a batch norm
CONV5_BINS = 14  # bins per side of a C4 detector's regions, which conv5 halves (Detectron2's Res5ROIHeads)


def derived_config(state: Mapping[str, Tensor], contract: WeightContract) -> ModelConfig:
    """The config whose model has exactly these tensors, with the conventions of the contract written out.

    Sizes of anchors, limits and thresholds do not appear in tensors; they are the zoo's, which are the defaults (for C4
    and DC5: 6000 candidates before NMS). Raises UserError where no config has these tensors.
    """
    classes = class_rows(state)
    if classes is None or contract.architecture is None:
        missing = "box classifier" if classes is None else "known backbone"
        raise UserError(f"{contract.source}: no detector of resdet's, it has no {missing}")
    config = ModelConfig(num_classes=classes)
    config.backbone.name = contract.architecture
    _neck(config, state)
    config.rpn.convs = len(_numbers(state, r"rpn\.head\.conv\.(\d+)\.0\.weight"))
    config.box_head = _box_head(config, state, classes)
    if stages := len(_numbers(state, r"roi_heads\.box_predictor\.(\d+)\.cls_score\.weight")):
        config.cascade = CascadeConfig()
        if stages != len(config.cascade.ious):
            raise UserError(f"{contract.source}: a cascade of {stages} stages, whose overlaps its tensors do not tell")
    config.mask_head = _mask_head(state)
    config, _ = completed(config, contract, contract.source)
    check_tensors(config, state, classes, contract.source)
    return config


def check_tensors(config: ModelConfig, state: Mapping[str, Tensor], num_classes: int, source: str) -> None:
    """Raises UserError unless the config's model has tensors with these names and shapes."""
    with torch.device("meta"):
        model = build_model(config, num_classes)
    ours, theirs = (
        {name: value.shape for name, value in without_counters(side).items()} for side in (model.state_dict(), state)
    )
    if wrong := sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)):
        raise UserError(
            f"{source}: no detector of resdet's, {len(wrong)} of its tensors do not fit {config.backbone.name} with "
            f"{config.neck.name} ({', '.join(wrong[:3])})"
        )


def for_model(state: Mapping[str, Tensor], config: ModelConfig, num_classes: int) -> dict[str, Tensor]:
    """The tensors with the same batch norm counters as the model; the counters count steps and do not
    affect results.
    """
    with torch.device("meta"):
        names = build_model(config, num_classes).state_dict().keys()
    kept = {name: value for name, value in state.items() if not name.endswith(COUNTERS) or name in names}
    counters = (name for name in names if name.endswith(COUNTERS) and name not in kept)
    return kept | {name: torch.zeros((), dtype=torch.int64) for name in counters}


def _neck(config: ModelConfig, state: Mapping[str, Tensor]) -> None:
    inner = state.get("neck.inner_blocks.0.0.weight")
    anchors = len(state["rpn.head.cls_logits.weight"]) if "rpn.head.cls_logits.weight" in state else 0
    if inner is not None:
        config.neck.name, config.neck.channels = "fpn", len(inner)
        config.neck.norm = _norm(state, "neck.inner_blocks.0.1.")
        if "neck.extra_blocks.p6.weight" in state:
            config.neck.extra_levels = "conv"
            config.anchors.sizes = [*config.anchors.sizes, 2 * config.anchors.sizes[-1]]
        expected = len(config.anchors.ratios)
    else:
        config.neck.name = "c4" if any(".box_head.layer4." in name for name in state) else "dc5"
        config.rpn.pre_nms_train, config.rpn.pre_nms_test = 12000, 6000
        expected = len(config.anchors.ratios) * len(config.anchors.sizes)
    if anchors != expected:
        raise UserError(f"{config.neck.name} with {anchors} anchors a cell, whose sizes its tensors do not tell")


def _box_head(config: ModelConfig, state: Mapping[str, Tensor], classes: int) -> BoxHeadConfig:
    box = BoxHeadConfig()
    deltas = next(
        v for name, v in state.items() if re.fullmatch(r"roi_heads\.box_predictor\.(\d\.)?bbox_pred\.bias", name)
    )
    box.class_agnostic = len(deltas) == 4 and classes > 1 and "roi_heads.box_predictor.0.bbox_pred.bias" not in state
    if config.neck.name == "c4":
        box.resolution = CONV5_BINS
        return box
    fc6 = next((v for n, v in state.items() if re.fullmatch(r"roi_heads\.box_head\.(\d\.)?fc6\.weight", n)), None)
    if fc6 is not None:
        channels = config.neck.channels if config.neck.name == "fpn" else _last_channels(config.backbone.name)
        box.fc_dim, box.resolution = len(fc6), math.isqrt(fc6.shape[1] // channels)
        return box
    box.name = "four_conv_fc"
    last = [value for name, value in state.items() if name.startswith("roi_heads.box_head.") and value.ndim == 2]
    if not last:
        raise UserError("its box head is none of resdet's")
    box.fc_dim, box.resolution = len(last[-1]), math.isqrt(last[-1].shape[1] // config.neck.channels)
    normed = [name for name in state if re.match(r"roi_heads\.box_head\..*(running_mean)", name)]
    box.norm = "bn" if normed else _norm(state, "roi_heads.box_head.0.1.")
    return box


def _mask_head(state: Mapping[str, Tensor]) -> MaskHeadConfig | None:
    predictor = state.get("roi_heads.mask_head.predictor.weight")
    if predictor is None:
        return None
    convs = len(_numbers(state, r"roi_heads\.mask_head\.mask_fcn(\d+)\.weight"))
    classes = class_rows(state)
    return MaskHeadConfig(
        convs=convs,
        channels=predictor.shape[1],
        norm=_norm(state, "roi_heads.mask_head.mask_fcn1.norm."),
        class_agnostic=len(predictor) == 1 and classes != 1,
    )


def _norm(state: Mapping[str, Tensor], prefix: str) -> Norm:
    if f"{prefix}weight" not in state:
        return "none"
    return "bn" if f"{prefix}running_mean" in state else "gn"


def _numbers(names: Iterable[str], pattern: str) -> set[int]:
    return {int(found[1]) for name in names if (found := re.fullmatch(pattern, name))}


def _last_channels(name: str) -> int:
    if name not in BACKBONES:
        raise UserError(f"{name} is no backbone of resdet's")
    with torch.device("meta"):
        return build_backbone(name).channels[-1]
