from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from timm.layers.drop import DropPath
from timm.layers.norm_act import FrozenBatchNormAct2d
from torch import nn

from resdet.errors import UserError
from resdet.models.backbones import build_backbone
from resdet.models.backbones.timm_backbone import TimmBackbone

FAMILIES = ["convnext_atto", "regnetx_002", "mobilenetv3_small_050"]
MORE_FAMILIES = [
    "efficientnet_b0",
    "tf_efficientnet_lite0",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "densenet121",
    "hrnet_w18_small",
    "resnet18d",
    "res2net50_14w_8s",
    "vgg11",
    "vgg11_bn",
    "mambaout_femto",
    "pvt_v2_b0",
    "resnetv2_50",
]


@pytest.mark.parametrize("name", [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE_FAMILIES)])
def test_a_timm_model_is_a_backbone_for_odd_sizes_whose_parameters_all_learn(name: str):
    _ = torch.manual_seed(0)
    backbone = build_backbone(f"timm/{name}", norm="bn", frozen_stages=1)
    features = backbone(torch.randn(2, 3, 70, 93))
    assert backbone.strides == (4, 8, 16, 32)
    sizes = [(18, 24), (9, 12), (5, 6), (3, 3)]  # ceil(70 / stride), ceil(93 / stride)
    shapes = [(2, channels, *size) for channels, size in zip(backbone.channels, sizes, strict=True)]
    assert [tuple(level.shape) for level in features] == shapes

    torch.autograd.backward([level.square().mean() for level in features])
    (_, stem), *stages = backbone.stages()
    assert all(parameter.grad is None for parameter in stem.parameters())
    trained = [parameter for _, stage in stages for parameter in stage.parameters()]
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in trained)
    grouped = {*stem.parameters(), *trained}
    assert grouped == set(backbone.parameters())
    assert len(list(stem.parameters())) + len(trained) == len(grouped)


def test_levels_equal_those_of_timms_whole_model():
    _ = torch.manual_seed(0)
    backbone = build_backbone("timm/convnext_atto")
    oracle = timm.create_model("convnext_atto", features_only=True)
    _ = oracle.load_state_dict(backbone.get_submodule("net").state_dict())
    images = torch.randn(1, 3, 64, 96)
    torch.testing.assert_close(backbone(images), oracle(images))


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("regnetx_002", 123.675, 58.395),
        ("mobilenetv3_small_050.lamb_in1k", 123.675, 58.395),
        ("tf_efficientnet_lite0", 127.5, 127.5),
    ],
)
def test_normalization_is_the_models_own(name: str, mean: float, std: float):
    with torch.device("meta"):
        backbone = TimmBackbone(name)
    assert backbone.pixel_mean[0] == pytest.approx(mean)
    assert backbone.pixel_std[0] == pytest.approx(std)


def test_frozen_bn_keeps_the_activation_that_a_timm_norm_carries():
    backbone = build_backbone("timm/regnetx_002", norm="frozen_bn").train()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())
    acts = [type(module.act) for module in backbone.modules() if isinstance(module, FrozenBatchNormAct2d)]
    assert nn.ReLU in acts


def test_a_stage_that_is_frozen_later_keeps_its_activations_too():
    _ = torch.manual_seed(0)
    images = torch.randn(1, 3, 64, 64)
    backbone = build_backbone("timm/regnetx_002", norm="bn").eval()
    frozen = build_backbone("timm/regnetx_002", norm="bn", frozen_stages=5)
    _ = frozen.load_state_dict(backbone.state_dict(), strict=True)
    torch.testing.assert_close(frozen.train()(images), backbone(images))


@pytest.mark.parametrize("rate", [0.0, 0.2])
def test_stochastic_depth_is_as_asked_for_whatever_timm_had_set(rate: float):
    with torch.device("meta"):
        backbone = TimmBackbone("swin_tiny_patch4_window7_224", stochastic_depth=rate)
    drops = [module.drop_prob for module in backbone.modules() if isinstance(module, DropPath)]
    assert drops == sorted(drops)
    assert drops[-1] == rate


def test_a_local_file_is_loaded(tmp_path: Path):
    _ = torch.manual_seed(0)
    source = timm.create_model("convnext_atto")
    file = tmp_path / "weights.pth"
    torch.save(source.state_dict(), file)
    weights = TimmBackbone("convnext_atto", weights=str(file)).state_dict()
    torch.testing.assert_close(weights["net.stem_0.weight"], source.state_dict()["stem.0.weight"])


MISTAKES = {
    "resnt50": "did you mean 'resnet50'",
    "zzzzzz": "timm.list_models",
    "resnet18.a1_in2k": "did you mean 'a1_in1k'",
    "vit_tiny_patch16_224": "one image size only",
    "maxvit_tiny_tf_224": "one image size only",
    "convmixer_768_32": r"maps at strides \[7\]",
}


@pytest.mark.parametrize(("name", "message"), MISTAKES.items())
def test_a_model_that_cannot_serve_is_refused_in_one_line(name: str, message: str):
    with pytest.raises(UserError, match=message) as caught, torch.device("meta"):
        _ = build_backbone(f"timm/{name}")
    assert "\n" not in str(caught.value)


def test_a_timm_model_keeps_its_own_norms():
    with pytest.raises(UserError, match="keeps its own norms"), torch.device("meta"):
        _ = build_backbone("timm/regnetx_002", norm="gn")
