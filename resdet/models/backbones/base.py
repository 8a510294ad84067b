"""The interface of all backbones, and the freezing of their first stages."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from resdet.errors import UserError
from resdet.models.backbones import norms


class Backbone(nn.Module, ABC):
    """Turns images into feature maps, finest first: C2, C3, C4, C5 at strides 4, 8, 16, 32 (CIFAR nets: 1, 2, 4)."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    # Mean and standard deviation for the normalization of images, RGB in 0..255; these are ImageNet's.
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    @abstractmethod
    def forward(self, images: Float[Tensor, "N 3 H W"]) -> list[Float[Tensor, "N _ _ _"]]:
        """One map per level: (N, channels[l], H / strides[l], W / strides[l]); the family of the net defines the
        rounding of odd sizes.
        """

    @abstractmethod
    def stages(self) -> list[tuple[str, nn.Module]]:
        """All parameters in groups, in the order of the forward pass, the stem first."""

    def freeze_norms(self, within: nn.Module) -> None:
        """Replaces the batch norms of one of the stages by frozen batch norms with the same numbers."""
        norms.freeze_norms(self, within=within)


def scaled(channels: int, width: float) -> int:
    """So many times the channels, rounded to a multiple of 8, and 8 at least (MobileNetV2, Sandler et al. 2018)."""
    return channels if width == 1 else max(8, round(channels * width / 8) * 8)


def freeze(backbone: Backbone, frozen_stages: int) -> None:
    """Freezes the first stages: 1 freezes the stem, 2 also the first stage, and so on (Detectron's FREEZE_AT).

    Their batch norms are replaced by frozen ones, so that their statistics do not change in training mode.
    """
    stages = backbone.stages()
    if not 0 <= frozen_stages <= len(stages):
        names = ", ".join(name for name, _ in stages)
        raise UserError(f"frozen_stages={frozen_stages} must be 0 to {len(stages)}: this backbone has {names}")
    for _, stage in stages[:frozen_stages]:
        _ = stage.requires_grad_(requires_grad=False)
        backbone.freeze_norms(within=stage)


def init_he(module: nn.Module) -> None:
    """He initialization (He et al. 2015, 1502.01852): gradients keep their variance through conv and ReLU (fan out);
    biases are zero.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            _ = nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                _ = nn.init.zeros_(layer.bias)
