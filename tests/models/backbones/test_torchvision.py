"""torchvision as the oracle: the same parameter names, and the same features at every level."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from exactness import assert_as_exact_as_oracle, assert_equal_in_float64
from resdet.models.backbones import build_backbone
from resdet.models.backbones.base import Backbone

LEVELS = ["layer1", "layer2", "layer3", "layer4"]
RESNETS = ["resnet18", "resnet50", "resnext50_32x4d"]
MORE_RESNETS = ["resnet34", "resnet101", "resnet152", "resnext101_32x8d", "resnext101_64x4d"]
WIDE_RESNETS = ["wide_resnet50_2", "wide_resnet101_2"]
VGGS = ["vgg11", "vgg16", "vgg16_bn"]
MORE_VGGS = ["vgg13", "vgg19", "vgg11_bn", "vgg13_bn", "vgg19_bn"]


def some_slow(names: list[str], slow: list[str]) -> list[object]:
    return [*names, *(pytest.param(name, marks=pytest.mark.slow) for name in slow)]


@pytest.mark.parametrize("size", [(64, 64), (61, 75)])
@pytest.mark.parametrize("name", some_slow(RESNETS, MORE_RESNETS + WIDE_RESNETS))
def test_a_resnet_equals_torchvisions(name: str, size: tuple[int, int]):
    assert_same_features(build_on_meta(name), oracle(name), LEVELS, size)


@pytest.mark.parametrize("name", some_slow(VGGS, MORE_VGGS))
def test_a_vgg_equals_torchvisions(name: str):
    net = oracle(name)
    pools = [name for name, layer in net.named_modules() if isinstance(layer, nn.MaxPool2d)]
    before = [f"features.{int(pool.removeprefix('features.')) - 1}" for pool in pools]
    assert_same_features(build_on_meta(name), net, [*before[2:], pools[-1]], (61, 75))


def test_the_caffe_nets_have_the_stride_in_the_first_1x1():
    net = oracle("resnet50")
    for stage in ("layer2", "layer3", "layer4"):
        conv2d(net, f"{stage}.0.conv1").stride = (2, 2)
        conv2d(net, f"{stage}.0.conv2").stride = (1, 1)
    assert_same_features(build_on_meta("resnet50_caffe"), net, LEVELS, (61, 75))


def test_a_dilated_c5_is_torchvisions_with_the_first_3x3_dilated_too():
    net = torchvision.models.resnet50(replace_stride_with_dilation=[False, False, True])
    first = conv2d(net, "layer4.0.conv2")
    first.dilation = first.padding = (2, 2)  # Detectron2 dilates every block of the stage
    backbone = build_on_meta("resnet50", dilated_c5=True)
    assert backbone.strides == (4, 8, 16, 16)
    assert_same_features(backbone, randomised(net), LEVELS, (61, 75))


def test_a_deformable_net_starts_as_the_ordinary_one():
    backbone = build_backbone("resnet50_deformable")
    net = oracle("resnet50")
    result = backbone.load_state_dict(feature_weights(net), strict=False)
    assert result.missing_keys
    assert all(".predictor." in name for name in result.missing_keys)
    assert_same_levels(backbone, net, LEVELS, torch.randn(1, 3, 61, 75))


def build_on_meta(name: str, *, dilated_c5: bool = False) -> Backbone:
    """Without drawing initial weights, which takes longer than the test."""
    with torch.device("meta"):
        return build_backbone(name, frozen_stages=2, dilated_c5=dilated_c5)


def oracle(name: str) -> nn.Module:
    with torch.device("meta"):
        net = torchvision.models.get_model(name)
    head = "classifier" if hasattr(net, "classifier") else "fc"
    setattr(net, head, nn.Identity())  # a hundred million weights in a VGG
    return randomised(net.to_empty(device="cpu"))


def randomised(net: nn.Module) -> nn.Module:
    """Convolutions that keep the variance, and batch norms in which each of the four numbers matters."""
    generator = torch.Generator().manual_seed(0)
    for layer in net.modules():
        for name, tensor in layer.state_dict(keep_vars=True).items():
            if isinstance(layer, nn.Conv2d):
                std = math.sqrt(2 / layer.weight[0].numel()) if name == "weight" else 0.1
                _ = tensor.data.normal_(0.0, std, generator=generator)
            elif isinstance(layer, nn.BatchNorm2d) and name in ("weight", "running_var"):
                _ = tensor.data.uniform_(0.5, 1.0, generator=generator)
            elif isinstance(layer, nn.BatchNorm2d) and name in ("bias", "running_mean"):
                _ = tensor.data.normal_(0.0, 0.1, generator=generator)
    return net.eval()


def conv2d(net: nn.Module, name: str) -> nn.Conv2d:
    layer = net.get_submodule(name)
    assert isinstance(layer, nn.Conv2d)
    return layer


def feature_weights(net: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in net.state_dict().items() if not name.startswith(("fc.", "classifier."))}


def oracle_features(net: nn.Module, levels: list[str], images: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return list(create_feature_extractor(net, levels)(images).values())


def assert_same_features(backbone: Backbone, net: nn.Module, levels: list[str], size: tuple[int, int]):
    _ = backbone.load_state_dict(feature_weights(net), strict=True, assign=True)
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    assert_same_levels(backbone, net, levels, images)


def assert_same_levels(backbone: Backbone, net: nn.Module, levels: list[str], images: Tensor):
    """Equal in float64, and as exact as torchvision's in float32. Both nets are float64 afterwards."""
    with torch.no_grad():
        features = backbone(images)
        theirs = oracle_features(net, levels, images)
        exact = oracle_features(net.double(), levels, images.double())
        assert_equal_in_float64(backbone.double()(images.double()), exact)
    assert tuple(level.shape[1] for level in features) == backbone.channels
    assert_as_exact_as_oracle(features, theirs, exact)
