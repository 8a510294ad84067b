"""Which network a set of tensor names and shapes belongs to, for the explanation of a refusal."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

Shapes = Mapping[str, Sequence[int]]

BOTTLENECKS = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152, (3, 24, 36, 3): 200}
BASIC = {(2, 2, 2, 2): 18, (3, 4, 6, 3): 34}
VGG_CONVOLUTIONS = {8: 11, 10: 13, 13: 16, 16: 19}
BLOCK = re.compile(r"(?:^|\.)layer(\d)\.(\d+)\.")


def family(shapes: Shapes) -> str | None:
    """For example "ResNet-101 (layer3 has 23 blocks)" or "VGG-16"; None for a network of another kind."""
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
        return f"VGG-{VGG_CONVOLUTIONS[len(vgg)]}{' with batch norm' if normed else ''}"
    return None


def architecture(shapes: Shapes) -> str | None:
    """A backbone's name in a config (resnet50, vgg16_bn); None where the tensors do not settle it."""
    found = re.match(r"(ResNet|VGG)-(\d+)( with batch norm)?", family(shapes) or "")
    return f"{found[1].lower()}{found[2]}{'_bn' if found[3] else ''}" if found else None


def _resnet(shapes: Shapes, blocks: tuple[int, ...]) -> str:
    bottleneck = any(re.search(r"layer\d\.\d+\.conv3\.weight$", name) for name in shapes)
    depths = BOTTLENECKS if bottleneck else BASIC
    depth = next((depth for known, depth in depths.items() if known[: len(blocks)] == blocks and len(blocks) > 2), None)
    middle = next((shape for name, shape in shapes.items() if name.endswith("layer1.0.conv2.weight")), (64, 64, 3, 3))
    kind = "ResNet"
    if bottleneck and middle[1] * 2 <= middle[0]:
        kind = f"ResNeXt with {middle[0] // middle[1]} groups, ResNet"
    elif bottleneck and middle[0] == 128:
        kind = "Wide ResNet"
    if depth is None:
        return f"a {kind} with {', '.join(map(str, blocks))} blocks"
    return f"{kind}-{depth} (its stages have {', '.join(map(str, blocks))} blocks)"
