"""Determines the network to which a set of tensor names and shapes belongs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Shapes = Mapping[str, Sequence[int]]

BOTTLENECKS = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152, (3, 24, 36, 3): 200}
BASIC = {(2, 2, 2, 2): 18, (3, 4, 6, 3): 34}
VGG_CONVOLUTIONS = {8: 11, 10: 13, 13: 16, 16: 19}
BLOCK = re.compile(r"(?:^|\.)layer(\d)\.(\d+)\.")


@dataclass(frozen=True)
class Network:
    """A ResNet, ResNeXt, Wide ResNet or VGG net; `depth` is None if no named variant has these numbers of blocks."""

    kind: str  # ResNet | ResNeXt | Wide ResNet | VGG
    depth: int | None
    blocks: tuple[int, ...] = ()  # blocks of each stage
    groups: int = 1  # of the 3x3 convolutions, and their width in the first stage
    width: int = 64
    normed: bool = True

    def text(self) -> str:
        """For example "ResNet-101 (its stages have 3, 4, 23, 3 blocks)" or "VGG-16 with batch norm"."""
        if self.kind == "VGG":
            return f"VGG-{self.depth}{' with batch norm' if self.normed else ''}"
        stages = ", ".join(map(str, self.blocks))
        kind = f"ResNeXt with {self.groups} groups, ResNet" if self.kind == "ResNeXt" else self.kind
        return (
            f"a {kind} with {stages} blocks"
            if self.depth is None
            else f"{kind}-{self.depth} (its stages have {stages} blocks)"
        )

    def architecture(self, *, stride_in_1x1: bool | None = None) -> str | None:
        """A backbone's name in a config (resnet50_caffe, resnext101_32x8d, vgg16_bn); None where there is none."""
        if self.depth is None:
            return None
        return {
            "VGG": f"vgg{self.depth}{'_bn' if self.normed else ''}",
            "ResNet": f"resnet{self.depth}{'_caffe' if stride_in_1x1 else ''}",
            "ResNeXt": f"resnext{self.depth}_{self.groups}x{self.width // self.groups}d",
            "Wide ResNet": f"wide_resnet{self.depth}_2",
        }[self.kind]


def network(shapes: Shapes) -> Network | None:
    """The network that the names and shapes determine; None for a network of another kind."""
    blocks: dict[int, int] = defaultdict(int)
    for name in shapes:
        if found := BLOCK.search(name):
            stage, block = int(found[1]), int(found[2])
            blocks[stage] = max(blocks[stage], block + 1)
    if blocks:
        return _resnet(shapes, tuple(blocks[stage] for stage in sorted(blocks)))
    vgg = [
        name for name, shape in shapes.items() if re.search(r"(?:^|\.)features\.\d+\.weight$", name) and len(shape) == 4
    ]
    if len(vgg) in VGG_CONVOLUTIONS:
        normed = any("running_mean" in name for name in shapes)
        return Network("VGG", VGG_CONVOLUTIONS[len(vgg)], normed=normed)
    return None


def family(shapes: Shapes) -> str | None:
    """The same in words, for an error message."""
    found = network(shapes)
    return None if found is None else found.text()


def _resnet(shapes: Shapes, blocks: tuple[int, ...]) -> Network:
    bottleneck = any(re.search(r"layer\d\.\d+\.conv3\.weight$", name) for name in shapes)
    depths = BOTTLENECKS if bottleneck else BASIC
    depth = next((depth for known, depth in depths.items() if known[: len(blocks)] == blocks and len(blocks) > 2), None)
    middle = next((shape for name, shape in shapes.items() if name.endswith("layer1.0.conv2.weight")), (64, 64, 3, 3))
    width, groups = middle[0], middle[0] // middle[1]
    kind = "ResNet"
    if bottleneck and groups > 1:
        kind = "ResNeXt"
    elif bottleneck and width == 128:
        kind = "Wide ResNet"
    return Network(kind, depth, blocks, groups=groups, width=width)
