"""Converts MSRA's ResNets in Caffe2's names (R-50.pkl, R-101.pkl): the originals of He et al. 2015, statistics folded.

Each batch norm is a scale s and an offset b. They are converted to weight and bias of a batch norm whose mean is 0 and
whose variance plus epsilon is 1, so that it computes exactly s * x + b.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from resdet.errors import UserError
from resdet.weights.contract import WeightContract
from resdet.weights.convert.detectron2 import CAFFE_MEAN, CAFFE_STD
from resdet.weights.convert.names import Converted, Rules, renamed

EPS = 1e-5
RULES: Rules = (
    (r"conv1_w", "conv1.weight"),
    (r"conv1_b", ""),  # the offset of the norm includes it
    (r"res_conv1_bn_s", "bn1.weight"),
    (r"res_conv1_bn_b", "bn1.bias"),
    (r"res(\d)_(\d+)_branch1_w", r"res\1.\2.downsample.0.weight"),
    (r"res(\d)_(\d+)_branch1_bn_s", r"res\1.\2.downsample.1.weight"),
    (r"res(\d)_(\d+)_branch1_bn_b", r"res\1.\2.downsample.1.bias"),
    (r"res(\d)_(\d+)_branch2([abc])_w", r"res\1.\2.conv\3.weight"),
    (r"res(\d)_(\d+)_branch2([abc])_bn_s", r"res\1.\2.bn\3.weight"),
    (r"res(\d)_(\d+)_branch2([abc])_bn_b", r"res\1.\2.bn\3.bias"),
    (r"(?:fc1000|pred)_[wb]|lr|weight_order|model_iter|.*_momentum", ""),
)


def from_msra(state: Mapping[str, Tensor], source: str) -> Converted:
    """A backbone with torchvision's names: BGR, Caffe's mean, stride in the first 1x1."""
    named, notes = renamed(state, RULES, source=source)
    new = {_numbered(name): value.float() for name, value in named.items()}
    for name, scale in list(new.items()):
        norm, _, kind = name.rpartition(".")
        if kind == "weight" and scale.ndim == 1:
            if f"{norm}.bias" not in new:
                raise UserError(f"{source}: {norm} has a scale but no offset")
            new[f"{norm}.running_mean"] = torch.zeros_like(scale)
            new[f"{norm}.running_var"] = torch.full_like(scale, unit_variance(EPS))
    contract = WeightContract(
        pixel_mean=CAFFE_MEAN,
        pixel_std=CAFFE_STD,
        channel_order="BGR",
        stride_in_1x1=True,
        bn_eps=EPS,
        source=f"MSRA / Caffe2 {source}",
    )
    return Converted(new, contract, notes)


def unit_variance(eps: float) -> float:
    """The float32 that gives exactly 1 when epsilon is added to it in float32."""
    variance = torch.tensor(1.0) - torch.tensor(eps)
    assert variance + eps == 1
    return float(variance)


def _numbered(name: str) -> str:
    """res2..res5 are layer1..layer4; branches a, b, c are 1, 2, 3."""
    name = re.sub(r"^res(\d)\.", lambda found: f"layer{int(found[1]) - 1}.", name)
    return re.sub(r"\.(conv|bn)([abc])\.", lambda found: f".{found[1]}{'abc'.index(found[2]) + 1}.", name)
