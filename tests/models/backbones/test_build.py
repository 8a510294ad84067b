from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from resdet.errors import UserError
from resdet.models.backbones import BACKBONES, Backbone, build_backbone, freeze
from resdet.models.backbones.norms import FrozenBatchNorm2d

SAMPLE = ["resnet18", "resnet18_a", "plain18", "preact_resnet18", "resnet20_cifar", "vgg11_bn", "nano"]


@pytest.mark.parametrize("name", [name for name in BACKBONES if "1202" not in name])
def test_every_name_gives_maps_of_the_channels_and_strides_it_states(name: str):
    with torch.device("meta"):
        backbone = build_backbone(name, frozen_stages=2)
        features = backbone(torch.empty(2, 3, 64, 96))
    shapes = [(2, c, 64 // s, 96 // s) for c, s in zip(backbone.channels, backbone.strides, strict=True)]
    assert [tuple(level.shape) for level in features] == shapes
    assert "cifar" in name or backbone.strides == (4, 8, 16, 32)


@pytest.mark.parametrize("name", SAMPLE)
def test_the_stages_hold_every_parameter_once(name: str):
    backbone = build_backbone(name, norm="bn")
    grouped = [parameter for _, stage in backbone.stages() for parameter in stage.parameters()]
    assert len(grouped) == len(set(grouped)) == len(list(backbone.parameters()))
    assert set(grouped) == set(backbone.parameters())


GRADIENTS = [*((name, "bn") for name in SAMPLE), *(("resnet20_cifar", norm) for norm in ("frozen_bn", "gn", "none"))]
ALL_GRADIENTS = [
    pytest.param(name, norm, marks=pytest.mark.slow)
    for name in BACKBONES
    for norm in ("frozen_bn", "bn", "gn")
    if "1202" not in name and (name, norm) not in GRADIENTS
]


@pytest.mark.parametrize(("name", "norm"), [*GRADIENTS, *ALL_GRADIENTS])
def test_every_trained_parameter_gets_a_gradient_and_frozen_ones_none(name: str, norm: str):
    _ = torch.manual_seed(0)
    backbone = build_backbone(name, norm=norm, frozen_stages=1)
    features = backbone(torch.randn(4, 3, 64, 64))
    torch.autograd.backward(torch.stack([level.mean() for level in features]).sum())
    frozen = {id(parameter) for parameter in backbone.stages()[0][1].parameters()}
    for parameter_name, parameter in backbone.named_parameters():
        if id(parameter) in frozen:
            assert parameter.grad is None, parameter_name
        else:
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.isfinite().all(), parameter_name
            assert parameter.grad.any(), parameter_name


def test_freezing_counts_the_stem_first_as_detectron_does():
    def trained(frozen_stages: int) -> set[str]:
        backbone = build_backbone("resnet18", norm="bn", frozen_stages=frozen_stages)
        return {name.split(".")[0] for name, parameter in backbone.named_parameters() if parameter.requires_grad}

    assert trained(0) == {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}
    assert trained(1) == {"layer1", "layer2", "layer3", "layer4"}
    assert trained(2) == {"layer2", "layer3", "layer4"}
    assert trained(5) == set()


def test_the_statistics_of_frozen_stages_do_not_move_in_training_and_others_do():
    backbone = build_backbone("resnet18", norm="bn", frozen_stages=2).train()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items() if "running" in name}
    _ = backbone(torch.randn(2, 3, 64, 64))
    after = backbone.state_dict()
    moved = {name.split(".")[0] for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert moved == {"layer2", "layer3", "layer4"}


def test_freezing_keeps_what_the_norms_have_learnt():
    backbone = build_backbone("resnet18", norm="bn")
    _ = backbone.train()(torch.randn(2, 3, 64, 64))
    images = torch.randn(1, 3, 64, 64)
    expected = backbone.eval()(images)
    freeze(backbone, 5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())
    assert any(isinstance(module, FrozenBatchNorm2d) for module in backbone.modules())
    torch.testing.assert_close(backbone.train()(images), expected)


MISTAKES = {
    "did you mean 'resnet50'": partial(build_backbone, "resnt50"),
    "known: resnet18": partial(build_backbone, "xyz"),
    "unknown norm 'batch'": partial(build_backbone, "resnet18", norm="batch"),
    "frozen_stages=6 must be 0 to 5": partial(build_backbone, "resnet18", frozen_stages=6),
    "'vgg16' has no option dilated_c5": partial(build_backbone, "vgg16", dilated_c5=True),
}


@pytest.mark.parametrize(("message", "build"), MISTAKES.items())
def test_a_mistake_is_one_line_that_says_how_to_mend_it(message: str, build: Callable[[], Backbone]):
    with pytest.raises(UserError, match=message) as caught:
        _ = build()
    assert "\n" not in str(caught.value)


def test_initial_weights_have_hes_variance():
    """2 / fan_out: 9 * 512 for the last 3x3 of resnet18."""
    _ = torch.manual_seed(0)
    weight = build_backbone("resnet18").state_dict()["layer4.1.conv2.weight"]
    assert weight.std().item() == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.01)
