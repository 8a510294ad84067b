"""A backbone of three convolutions for tests."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from resdet.models.backbones.base import Backbone, init_he
from resdet.models.backbones.norms import NORMS, conv_norm


class Nano(Backbone):
    """16 channels at every level; C5 is a max pool of C4."""

    def __init__(self, *, norm: str = "frozen_bn") -> None:
        super().__init__()
        self.channels = (16, 16, 16, 16)
        self.strides = (4, 8, 16, 32)
        self.conv1 = nn.Conv2d(3, 16, 5, stride=4, padding=2)
        self.bn1 = NORMS[norm](16)
        self.conv2 = nn.Conv2d(16, 16, 3, stride=2, padding=1)
        self.bn2 = NORMS[norm](16)
        self.conv3 = nn.Conv2d(16, 16, 3, stride=2, padding=1)
        self.bn3 = NORMS[norm](16)
        init_he(self)

    def forward(self, images: Float[Tensor, "N 3 H W"]) -> list[Float[Tensor, "N 16 _ _"]]:
        c2 = conv_norm(images, self.conv1, self.bn1).relu_()
        c3 = conv_norm(c2, self.conv2, self.bn2).relu_()
        c4 = conv_norm(c3, self.conv3, self.bn3).relu_()
        return [c2, c3, c4, F.max_pool2d(c4, 2, ceil_mode=True)]

    def stages(self) -> list[tuple[str, nn.Module]]:
        return [
            ("stem", nn.ModuleList([self.conv1, self.bn1])),
            ("conv2", nn.ModuleList([self.conv2, self.bn2])),
            ("conv3", nn.ModuleList([self.conv3, self.bn3])),
        ]
