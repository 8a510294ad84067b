"""timm's resnetv2 as the oracle. It pools before the first norm: the same, where that norm's weight is positive."""

from __future__ import annotations

import re

import timm
import torch
from torch import Tensor, nn

from exactness import assert_as_exact_as_oracle, assert_equal_in_float64
from resdet.models.backbones import build_backbone

DEPTHS = (3, 4, 6, 3)


def test_a_preactivation_net_equals_timms():
    _ = torch.manual_seed(0)
    oracle = timm.create_model("resnetv2_50", num_classes=0, global_pool="").eval()
    for tensor_name, tensor in oracle.state_dict().items():
        if "norm" in tensor_name and tensor.is_floating_point():
            _ = tensor.uniform_(0.5, 1.0)
    backbone = build_backbone("preact_resnet50", norm="bn").eval()
    state = {our_name(key): value for key, value in oracle.state_dict().items()}
    _ = backbone.load_state_dict(state, strict=True)
    images = torch.randn(1, 3, 61, 75)
    with torch.no_grad():
        ours, theirs = backbone(images)[-1], oracle(images)
        exact = oracle.double()(images.double())
        assert_equal_in_float64(backbone.double()(images.double())[-1:], [exact])
    assert_as_exact_as_oracle([ours], [theirs], [exact])


def our_name(name: str) -> str:
    """The first norm of a stage is the last module of the stage before, or the stem's; the blocks' names agree."""
    if match := re.fullmatch(r"stages\.(\d)\.blocks\.0\.norm1\.(.*)", name):
        stage = int(match[1])
        return f"bn1.{match[2]}" if stage == 0 else f"layer{stage}.{DEPTHS[stage - 1]}.{match[2]}"
    name = re.sub(r"^norm\.", f"layer4.{DEPTHS[3]}.", name.replace("stem.conv", "conv1"))
    name = re.sub(r"stages\.(\d)\.blocks", lambda match: f"layer{int(match[1]) + 1}", name)
    return name.replace("norm", "bn").replace("downsample.conv", "downsample")


def test_the_path_of_x_is_clean():
    """With F at zero a block is the identity, so negative values pass too."""
    backbone = build_backbone("preact_resnet18", norm="bn").eval()
    block = backbone.get_submodule("layer1.1")
    last = block.get_submodule("conv2")
    assert isinstance(last, nn.Conv2d)
    _ = nn.init.zeros_(last.weight)
    x: Tensor = torch.randn(1, 64, 4, 4)
    torch.testing.assert_close(block(x), x)
