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
