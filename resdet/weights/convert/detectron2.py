"""Converts Detectron2's model zoo (.pkl and .pth; FPN, C4 and DC5; boxes and masks) to resdet's names.

The background is the last class and box deltas are ordered by class, as in resdet; only names and the image convention
differ.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from torch import Tensor

from resdet.errors import UserError
from resdet.weights.contract import Triple, WeightContract
from resdet.weights.convert.names import TENSOR, Converted, Rules, class_rows, renamed

CAFFE_MEAN: Triple = (123.675, 116.28, 103.53)  # R, G, B
CAFFE_STD: Triple = (1.0, 1.0, 1.0)
RESNEXT_STD: Triple = (58.395, 57.12, 57.375)  # X-101-32x8d only

TRUNK = r"(?:backbone\.)?(?:bottom_up\.)?"
# In an FPN without a norm the convolution has the bias; with a norm, the layer behind it has the bias.
RULES: Rules = (
    (rf"{TRUNK}stem\.conv1\.norm\.{TENSOR}", r"backbone.bn1.\1"),
    (rf"{TRUNK}stem\.conv1\.(weight)", r"backbone.conv1.\1"),
    (rf"{TRUNK}stem\.conv1\.bias", ""),  # in MSRA's files; the offset of the norm includes it
    (rf"{TRUNK}(?:stem\.)?(?:fc|fc1000|linear)\.(?:weight|bias)", ""),
    (rf"{TRUNK}res(\d)\.(\d+)\.shortcut\.norm\.{TENSOR}", r"backbone.res\1.\2.downsample.1.\3"),
    (rf"{TRUNK}res(\d)\.(\d+)\.shortcut\.weight", r"backbone.res\1.\2.downsample.0.weight"),
    (rf"{TRUNK}res(\d)\.(\d+)\.conv(\d)\.norm\.{TENSOR}", r"backbone.res\1.\2.bn\3.\4"),
    (rf"{TRUNK}res(\d)\.(\d+)\.conv(\d)\.weight", r"backbone.res\1.\2.conv\3.weight"),
    (r"roi_heads\.res5\.(\d+)\.shortcut\.norm\." + TENSOR, r"roi_heads.box_head.res5.\1.downsample.1.\2"),
    (r"roi_heads\.res5\.(\d+)\.shortcut\.weight", r"roi_heads.box_head.res5.\1.downsample.0.weight"),
    (r"roi_heads\.res5\.(\d+)\.conv(\d)\.norm\." + TENSOR, r"roi_heads.box_head.res5.\1.bn\2.\3"),
    (r"roi_heads\.res5\.(\d+)\.conv(\d)\.weight", r"roi_heads.box_head.res5.\1.conv\2.weight"),
    (r"backbone\.fpn_lateral([2-5])\.(weight|bias)", r"neck.inner_blocks.\1.0.\2"),
    (r"backbone\.fpn_lateral([2-5])\.norm\." + TENSOR, r"neck.inner_blocks.\1.1.\2"),
    (r"backbone\.fpn_output([2-5])\.(weight|bias)", r"neck.layer_blocks.\1.0.\2"),
    (r"backbone\.fpn_output([2-5])\.norm\." + TENSOR, r"neck.layer_blocks.\1.1.\2"),
    (r"proposal_generator\.rpn_head\.conv\.(weight|bias)", r"rpn.head.conv.0.0.\1"),
    (r"proposal_generator\.rpn_head\.conv\.conv(\d)\.(weight|bias)", r"rpn.head.conv.\1.0.\2"),
    (r"proposal_generator\.rpn_head\.objectness_logits\.(weight|bias)", r"rpn.head.cls_logits.\1"),
    (r"proposal_generator\.rpn_head\.anchor_deltas\.(weight|bias)", r"rpn.head.bbox_pred.\1"),
    (r"proposal_generator\.anchor_generator\.cell_anchors\.\d+", ""),  # these follow from the config
    (r"roi_heads\.box_head\.(\d\.)?fc1\.(weight|bias)", r"roi_heads.box_head.\1fc6.\2"),  # \1: a cascade's stage
    (r"roi_heads\.box_head\.(\d\.)?fc2\.(weight|bias)", r"roi_heads.box_head.\1fc7.\2"),
    (r"roi_heads\.box_predictor\.(\d\.)?(cls_score|bbox_pred)\.(weight|bias)", r"roi_heads.box_predictor.\1\2.\3"),
    (r"roi_heads\.mask_head\.(mask_fcn\d|deconv|predictor)\.(weight|bias)", r"roi_heads.mask_head.\1.\2"),
    (rf"roi_heads\.mask_head\.(mask_fcn\d)\.norm\.{TENSOR}", r"roi_heads.mask_head.\1.norm.\2"),
    (r"pixel_(?:mean|std)", ""),  # these are read into the contract
)


def from_detectron2(
    state: Mapping[str, Tensor], source: str, *, channel_order: Literal["RGB", "BGR"] = "BGR"
) -> Converted:
    """The zoo's conventions: BGR, Caffe's mean, stride in the first 1x1 (ResNeXt: the 3x3), corners not rounded, an
    adaptive number of samples in RoIAlign.

    If a file contains `pixel_mean` and `pixel_std` (older .pth files), they are used. Give `channel_order="RGB"` for
    the newer baselines, which were trained on torchvision's weights.
    """
    new, notes = renamed(state, RULES, source=source)
    new = {_numbered(name): value for name, value in new.items()}
    groups = _groups(new)
    resnext = groups > 1 or channel_order == "RGB"
    contract = WeightContract(
        pixel_mean=CAFFE_MEAN,
        pixel_std=RESNEXT_STD if resnext else CAFFE_STD,
        channel_order=channel_order,
        stride_in_1x1=not resnext,
        bn_eps=1e-5,
        source=f"Detectron2 {source}",
        anchors_rounded=False if "rpn.head.cls_logits.weight" in new else None,
        roi_align_aligned=True if class_rows(new) is not None else None,
        roi_sampling_ratio=0 if class_rows(new) is not None else None,
    )
    return Converted(new, _with_own_pixels(contract, state, source), notes)


def _numbered(name: str) -> str:
    """res2..res5 are layer1..layer4, fpn_lateral2..5 the pyramid's blocks 0..3."""
    name = re.sub(r"\.res(\d)\.", lambda found: f".layer{int(found[1]) - 1}.", name)
    return re.sub(r"_blocks\.(\d)\.", lambda found: f"_blocks.{int(found[1]) - 2}.", name)


def _groups(state: Mapping[str, Tensor]) -> int:
    middle = state.get("backbone.layer1.0.conv2.weight")
    return 1 if middle is None else max(1, middle.shape[0] // middle.shape[1])


def _with_own_pixels(contract: WeightContract, state: Mapping[str, Tensor], source: str) -> WeightContract:
    found: dict[str, Triple] = {}
    for name in ("pixel_mean", "pixel_std"):
        if name in state:
            values = [float(value) for value in state[name].flatten()]
            if len(values) != 3:
                raise UserError(f"{source}: {name} has {len(values)} numbers, not 3")
            first, second, third = values if contract.channel_order == "RGB" else values[::-1]
            found[name] = (first, second, third)
    return replace(
        contract,
        pixel_mean=found.get("pixel_mean", contract.pixel_mean),
        pixel_std=found.get("pixel_std", contract.pixel_std),
    )
