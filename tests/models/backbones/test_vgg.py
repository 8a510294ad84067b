from __future__ import annotations

import torch

from resdet.models.backbones import build_backbone, freeze
from resdet.models.backbones.vgg import VGG


def test_vgg16_with_two_frozen_blocks_trains_conv3_1_and_up():
    """As in the paper: features.0 to features.7 are conv1 and conv2, features.10 is conv3_1."""
    backbone = VGG((2, 2, 3, 3, 3), norm=None)
    freeze(backbone, 2)
    trained = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    places = (10, 12, 14, 17, 19, 21, 24, 26, 28)
    assert trained == {f"features.{place}.{part}" for place in places for part in ("weight", "bias")}


def test_the_original_vgg_has_no_norm_whatever_is_asked_for():
    with torch.device("meta"):
        assert (
            build_backbone("vgg16", norm="gn").state_dict().keys()
            == VGG((2, 2, 3, 3, 3), norm=None).state_dict().keys()
        )


def test_a_narrower_vgg_gives_maps_of_the_channels_that_it_declares():
    backbone = VGG((1, 1, 1, 1, 1), norm="bn", widths=(4, 8, 12, 16, 20)).eval()
    maps = backbone(torch.zeros(1, 3, 64, 96))
    assert [tuple(level.shape[1:]) for level in maps] == [(12, 16, 24), (16, 8, 12), (20, 4, 6), (20, 2, 3)]
    assert backbone.channels == (12, 16, 20, 20)
