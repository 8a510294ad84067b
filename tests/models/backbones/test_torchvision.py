"""torchvision as the oracle: the same parameter names, and the same features at every level."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from resdet.models.backbones import build_backbone

RESNETS = ["resnet18", "resnet34", "resnet50"]
DEEP_RESNETS = ["resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2", "wide_resnet101_2"]
VGGS = ["vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"]
RESNET_LEVELS = ["layer1", "layer2", "layer3", "layer4"]


@pytest.mark.parametrize("size", [(64, 64), (61, 75)])
@pytest.mark.parametrize("name", RESNETS)
def test_a_resnet_equals_torchvisions(name: str, size: tuple[int, int]):
    oracle = randomised(torchvision.models.get_model(name))
    assert_same_features(name, oracle, RESNET_LEVELS, size)


@pytest.mark.parametrize("name", VGGS)
def test_a_vgg_equals_torchvisions(name: str):
    oracle = randomised(torchvision.models.get_model(name))
    pools = [
        index
        for index, layer in enumerate(oracle.get_submodule("features").children())
        if isinstance(layer, nn.MaxPool2d)
    ]
    levels = [
        f"features.{pools[2] - 1}",
        f"features.{pools[3] - 1}",
        f"features.{pools[4] - 1}",
        f"features.{pools[4]}",
    ]
    assert_same_features(name, oracle, levels, (61, 75))


def randomised(model: nn.Module) -> nn.Module:
    """Batch norms that are not the identity, so that each of their four numbers matters."""
    generator = torch.Generator().manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.running_var):
                assert tensor is not None
                _ = tensor.uniform_(0.5, 1.0, generator=generator)
            for tensor in (layer.bias.data, layer.running_mean):
                assert tensor is not None
                _ = tensor.normal_(0.0, 0.1, generator=generator)
    return model.eval()


def assert_same_features(name: str, oracle: nn.Module, levels: list[str], size: tuple[int, int]):
    backbone = build_backbone(name)
    state = {key: value for key, value in oracle.state_dict().items() if not key.startswith(("fc.", "classifier."))}
    _ = backbone.load_state_dict(state, strict=True)
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected: dict[str, Tensor] = create_feature_extractor(oracle, levels)(images)
        features = backbone(images)
    for ours, theirs, channels in zip(features, expected.values(), backbone.channels, strict=True):
        assert ours.shape[1] == channels
        torch.testing.assert_close(ours / theirs.std(), theirs / theirs.std(), atol=1e-4, rtol=1e-4)
