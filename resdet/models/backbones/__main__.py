"""`python -m resdet.models.backbones` prints the table of docs/backbones.md: parameters and multiply-adds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from resdet.models.backbones import BACKBONES, Backbone, build_backbone

# Billions of multiply-adds in He et al. 2015: table 1, and sections 3.3 (34 layers, VGG-19) and 4.3 (VGG-16).
PAPER = {
    "resnet18": 1.8,
    "resnet34": 3.6,
    "resnet50_caffe": 3.8,
    "resnet101_caffe": 7.6,
    "resnet152_caffe": 11.3,
    "plain18": 1.8,
    "plain34": 3.6,
    "vgg16": 15.3,
    "vgg19": 19.6,
}


def _deformable_flops(
    input_shape: Sequence[int], weight_shape: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any
) -> int:
    """Counts a deformable convolution as an ordinary one, without the interpolation at each tap."""
    return 2 * math.prod(out_shape) * math.prod(weight_shape[1:])


FLOPS = {torch.ops.torchvision.deform_conv2d: _deformable_flops}


def parameters(backbone: Backbone) -> int:
    """The number of learned values without running statistics; the scale and offset of a frozen norm are included."""
    return sum(tensor.numel() for name, tensor in backbone.state_dict().items() if "running" not in name)


def multiply_adds(backbone: Backbone, height: int, width: int) -> int:
    """The multiply-adds of one image's convolutions; a backbone on the meta device is sufficient."""
    device = next(backbone.parameters()).device
    with FlopCounterMode(display=False, custom_mapping=FLOPS) as counter, torch.no_grad():
        _ = backbone(torch.empty(1, 3, height, width, device=device))
    return counter.get_total_flops() // 2


def row(name: str) -> str:
    """One line of the table."""
    with torch.device("meta"):
        backbone = build_backbone(name)
    side = 32 if "cifar" in name else 224
    millions, billions = parameters(backbone) / 1e6, multiply_adds(backbone, side, side) / 1e9
    paper = PAPER.get(name, "")
    strides = " ".join(map(str, backbone.strides))
    channels = " ".join(map(str, backbone.channels))
    return f"| {name} | {millions:.2f} | {billions:.2f} | {paper} | {channels} | {strides} |"


def main() -> None:
    """Prints the table."""
    print("| name | parameters (M) | multiply-adds (G) | paper | channels | strides |")
    print("|---|---|---|---|---|---|")
    for name in BACKBONES:
        print(row(name))


if __name__ == "__main__":
    main()
