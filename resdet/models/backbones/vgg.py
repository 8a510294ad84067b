"""VGG nets (Simonyan & Zisserman 2014, 1409.1556), with torchvision's parameter names."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from resdet.models.backbones.base import Backbone, init_he, scaled
from resdet.models.backbones.norms import NORMS, conv_norm

CHANNELS = (64, 128, 256, 512, 512)  # channels of each block (Simonyan & Zisserman 2014, Table 1)


class VGG(Backbone):
    """Five blocks of 3x3 convolutions, each ending in a 2x2 max pool.

    C2, C3 and C4 are the inputs of pool3, pool4 and pool5 (after the ReLU of conv3_3, conv4_3 and conv5_3 in VGG-16);
    C5 is pool5. A pool rounds odd sizes down.

    Args:
        depths: convolutions per block.
        norm: a key of NORMS for the nets with a norm behind each convolution, None for the original nets.
        width: factor on the channels of all blocks.
    """

    def __init__(self, depths: Sequence[int], *, norm: str | None, width: float = 1.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.pools: list[int] = []  # their positions in `features`; each ends a block
        in_channels, widths = 3, [scaled(channels, width) for channels in CHANNELS]
        for depth, channels in zip(depths, widths, strict=True):
            for _ in range(depth):
                layers.append(nn.Conv2d(in_channels, channels, 3, padding=1))
                layers += [NORMS[norm](channels)] if norm else []
                layers.append(nn.ReLU(inplace=True))
                in_channels = channels
            self.pools.append(len(layers))
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.channels = (*widths[2:], widths[-1])
        self.strides = (4, 8, 16, 32)
        init_he(self)

    def forward(self, images: Float[Tensor, "N 3 H W"]) -> list[Float[Tensor, "N _ _ _"]]:
        x, before_pools = images, []
        for block, pool in zip(self._blocks(), self.pools, strict=True):
            x = run_layers(x, block)
            before_pools.append(x)
            x = self.features[pool](x)
        return [*before_pools[2:], x]

    def stages(self) -> list[tuple[str, nn.Module]]:
        return [(f"conv{index + 1}", nn.ModuleList(block)) for index, block in enumerate(self._blocks())]

    def _blocks(self) -> list[list[nn.Module]]:
        layers = list(self.features)
        starts = [0, *(pool + 1 for pool in self.pools[:-1])]
        return [layers[start:pool] for start, pool in zip(starts, self.pools, strict=True)]


def run_layers(x: Float[Tensor, "N _ _ _"], layers: Sequence[nn.Module]) -> Float[Tensor, "N _ _ _"]:
    """The forward pass of nn.Sequential, in which a norm after a convolution is computed in the same pass."""
    layers = list(layers)
    while layers:
        layer = layers.pop(0)
        if isinstance(layer, nn.Conv2d) and not isinstance(layers[0], nn.ReLU):
            x = conv_norm(x, layer, layers.pop(0))
        else:
            x = layer(x)
    return x
