"""Converts torchvision's classifiers and detectors (old and new names) to resdet's names.

Its detectors put the background first and predict boxes for it too; ours put it last and predict none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from resdet.errors import UserError
from resdet.weights.contract import WeightContract
from resdet.weights.convert.names import TENSOR, Converted, Rules, class_rows, renamed

IMAGENET = WeightContract(
    pixel_mean=(123.675, 116.28, 103.53),  # (0.485, 0.456, 0.406) of 255
    pixel_std=(58.395, 57.12, 57.375),  # (0.229, 0.224, 0.225) of 255
    source="torchvision",
)
# Files whose detectors torchvision runs with an epsilon of 0 (`overwrite_eps` in its faster_rcnn.py and mask_rcnn.py).
WITHOUT_EPSILON = ("fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth")
BACKGROUND, UNUSED = "__background__", "N/A"  # names in torchvision's lists of COCO's categories

DETECTOR_RULES: Rules = (
    (r"backbone\.body\.(.+)", r"backbone.\1"),
    # Until torchvision 0.13 a convolution of the pyramid or the RPN was not wrapped in a block with a place for a norm.
    (r"backbone\.fpn\.(inner|layer)_blocks\.(\d)\.(weight|bias)", r"neck.\1_blocks.\2.0.\3"),
    (rf"backbone\.fpn\.(inner|layer)_blocks\.(\d)\.(\d)\.{TENSOR}", r"neck.\1_blocks.\2.\3.\4"),
    (r"rpn\.head\.conv\.(weight|bias)", r"rpn.head.conv.0.0.\1"),
    (r"rpn\.head\.(conv\.\d\.\d|cls_logits|bbox_pred)\.(weight|bias)", r"rpn.head.\1.\2"),
    (r"roi_heads\.box_head\.(fc6|fc7|\d)\.(weight|bias)", r"roi_heads.box_head.\1.\2"),
    (rf"roi_heads\.box_head\.(\d\.\d)\.{TENSOR}", r"roi_heads.box_head.\1.\2"),
    (r"roi_heads\.box_predictor\.(cls_score|bbox_pred)\.(weight|bias)", r"roi_heads.box_predictor.\1.\2"),
    (r"roi_heads\.mask_head\.(mask_fcn\d)\.(weight|bias)", r"roi_heads.mask_head.\1.\2"),
    (rf"roi_heads\.mask_head\.(\d)\.(\d)\.{TENSOR}", r"roi_heads.mask_head.\1.\2.\3"),
    (r"roi_heads\.mask_predictor\.conv5_mask\.(weight|bias)", r"roi_heads.mask_head.deconv.\1"),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits\.(weight|bias)", r"roi_heads.mask_head.predictor.\1"),
)
CLASSIFIER_RULES: Rules = ((r"(?:fc|classifier)\..*", ""), (r"(.+)", r"\1"))


def from_torchvision(state: Mapping[str, Tensor], source: str) -> Converted:
    """A detector (names that begin with backbone.body.) or a classifier without its last layers."""
    if not any(name.startswith("backbone.body.") for name in state):
        return _classifier(state, source)
    new, notes = renamed(state, DETECTOR_RULES, source=source)
    new = {_plain_mask_name(name): value for name, value in new.items()}
    contract = replace(
        IMAGENET,
        stride_in_1x1=False,
        bn_eps=1e-5,
        source=f"torchvision {source}",
        anchors_rounded=True,
        roi_align_aligned=False,
        roi_sampling_ratio=2,
    )
    if class_rows(new) is None:
        raise UserError(f"{source}: a torchvision detector without roi_heads.box_predictor is not a Faster R-CNN")
    moved = "background moved from the first class to the last, its box and mask rows left out"
    if Path(source).name in WITHOUT_EPSILON:
        new = {name: value - 1e-5 if name.endswith("running_var") else value for name, value in new.items()}
        notes = (*notes, "trained with an epsilon of 0: every running variance was lowered by 1e-5")
    return Converted(_background_last(new, source), contract, (*notes, moved))


def keep_classes(converted: Converted, names: Sequence[str], *, unused: str = UNUSED) -> Converted:
    """Sets the names of the K classes and removes the rows of the classes called `unused`.

    torchvision's COCO detectors count the 90 category ids, ten of which are not used by any object. Without these rows
    the classes are COCO's 80 in the order of their ids. Raises UserError if the numbers do not agree.
    """
    rows = class_rows(converted.state)
    names = [name for name in names if name != BACKGROUND]
    if rows is None or len(names) != rows:
        raise UserError(f"{converted.contract.source}: {len(names)} class names for a file of {rows or 'no'} classes")
    kept = torch.tensor([index for index, name in enumerate(names) if name != unused])
    state = {name: _rows(name, value, kept, rows) for name, value in converted.state.items()}
    contract = replace(converted.contract, class_names=tuple(name for name in names if name != unused))
    left_out = (f"{rows - len(kept)} classes called {unused} left out",) if len(kept) < rows else ()
    return Converted(state, contract, (*converted.notes, *left_out))


def _rows(name: str, value: Tensor, kept: Tensor, rows: int) -> Tensor:
    if name.startswith("roi_heads.box_predictor.cls_score."):
        return value[torch.cat([kept, torch.tensor([rows])])]
    if name.startswith("roi_heads.box_predictor.bbox_pred.") and len(value) == 4 * rows:
        return value.unflatten(0, (rows, 4))[kept].flatten(0, 1)
    if name.startswith("roi_heads.mask_head.predictor.") and len(value) == rows:
        return value[kept]
    return value


def _background_last(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    new = dict(state)
    rows = len(state["roi_heads.box_predictor.cls_score.weight"])
    for kind in ("weight", "bias"):
        scores, boxes = (f"roi_heads.box_predictor.{part}.{kind}" for part in ("cls_score", "bbox_pred"))
        masks = f"roi_heads.mask_head.predictor.{kind}"
        if len(state[boxes]) != 4 * rows:
            raise UserError(f"{source}: {boxes} has {len(state[boxes])} rows, not 4 for each of {rows} classes")
        new[scores] = state[scores].roll(-1, 0)
        new[boxes] = state[boxes][4:]
        if masks in state:
            new[masks] = state[masks][1:]
    return new


def _plain_mask_name(name: str) -> str:
    """mask_head.0.0 is mask_fcn1, mask_head.0.1 the norm behind it."""
    part = {"0": "", "1": "norm."}
    return re.sub(
        r"mask_head\.(\d)\.([01])\.", lambda found: f"mask_head.mask_fcn{int(found[1]) + 1}.{part[found[2]]}", name
    )


def _classifier(state: Mapping[str, Tensor], source: str) -> Converted:
    new, notes = renamed(state, CLASSIFIER_RULES, source=source)
    bottleneck = any(name.endswith(".conv3.weight") for name in new)
    normed = any(name.endswith("running_mean") for name in new)
    contract = replace(
        IMAGENET,
        stride_in_1x1=False if bottleneck else None,
        bn_eps=1e-5 if normed else None,
        source=f"torchvision {source}",
    )
    return Converted(new, contract, notes)
