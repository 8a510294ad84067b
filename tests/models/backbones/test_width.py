"""A factor on the channels of a backbone, by a key of the config."""

from __future__ import annotations

import pytest
import torch

from resdet.config import load_config
from resdet.errors import UserError
from resdet.models.backbones import build_backbone
from resdet.models.build.detector import build_model


@pytest.mark.parametrize(
    ("name", "width", "channels"),
    [
        ("resnet18", 0.5, (32, 64, 128, 256)),
        ("plain34", 0.25, (16, 32, 64, 128)),
        ("resnet50", 0.25, (64, 128, 256, 512)),
        ("preact_resnet18", 0.25, (16, 32, 64, 128)),
        ("resnext50_32x4d", 0.5, (128, 256, 512, 1024)),
        ("wide_resnet50_2", 2.0, (512, 1024, 2048, 4096)),
        ("resnet20_cifar", 2.0, (32, 64, 128)),
        ("vgg16", 0.25, (64, 128, 128, 128)),
        ("vgg11_bn", 0.05, (16, 24, 24, 24)),
    ],
)
def test_a_backbone_gives_maps_of_so_many_times_the_channels(name: str, width: float, channels: tuple[int, ...]):
    with torch.device("meta"):
        backbone = build_backbone(name, norm="bn", width=width)
        maps = backbone(torch.zeros(1, 3, 64, 64))
    assert backbone.channels == channels
    assert tuple(level.shape[1] for level in maps) == channels


def test_half_the_width_is_about_a_quarter_of_the_weights():
    with torch.device("meta"):
        whole, half = (build_backbone("resnet18", width=width) for width in (1.0, 0.5))
    share = sum(p.numel() for p in half.parameters()) / sum(p.numel() for p in whole.parameters())
    assert 0.25 < share < 0.26


def test_a_width_of_one_changes_nothing():
    _ = torch.manual_seed(0)
    named = build_backbone("resnet18", norm="bn")
    _ = torch.manual_seed(0)
    equal = build_backbone("resnet18", norm="bn", width=1.0)
    assert all(torch.equal(a, b) for a, b in zip(named.parameters(), equal.parameters(), strict=True))


@pytest.mark.parametrize("name", ["nano", "timm/resnet10t"])
def test_a_family_of_one_width_is_refused(name: str):
    with pytest.raises(UserError, match=f"backbone '{name}' has no option width; leave it out"):
        _ = build_backbone(name, norm="bn", width=0.5)


def test_a_width_that_splits_no_groups_is_refused():
    with pytest.raises(UserError, match=r"backbone 'resnext50_32x4d' cannot have 0\.3 times its channels"):
        _ = build_backbone("resnext50_32x4d", norm="bn", width=0.3)


@pytest.mark.parametrize(
    ("name", "neck"), [("resnet18", "fpn"), ("resnet50", "c4"), ("plain18", "dc5"), ("vgg11", "c4")]
)
def test_every_layout_takes_a_narrow_backbone(name: str, neck: str):
    config = load_config(
        overrides=[
            f"model.backbone.name={name}",
            f"model.neck.name={neck}",
            "model.backbone.norm=bn",
            "model.backbone.width=0.25",
            "model.backbone.frozen_stages=0",
        ]
    )
    with torch.device("meta"):
        _ = build_model(config.model, 3)
