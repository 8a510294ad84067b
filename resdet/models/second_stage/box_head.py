"""Box heads: a vector for each pooled region, from which class and box are predicted (Girshick 2015)."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class BoxHead(nn.Module):
    """One vector for each region, in two steps: `maps`, which a mask head can share, and `forward` of them.

    Most box heads have no such maps; their `maps` returns the regions unchanged.
    """

    out_channels: int  # of the vector
    map_channels: int | None = None  # of maps that a mask head can share; None: there are none

    def maps(self, regions: Float[Tensor, "NR C _h _w"]) -> Float[Tensor, "NR _ _ _"]:
        return regions


class TwoLayerBoxHead(BoxHead):
    """Two hidden fully connected layers over the flattened region (Lin et al. 2017, section 4.2; VGG's fc6 and fc7).

    `dropout` is the fraction of the hidden units that each layer leaves out in training.
    """

    def __init__(self, in_channels: int, resolution: int, dim: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.out_channels = dim
        self.dropout = dropout
        self.fc6 = nn.Linear(in_channels * resolution**2, dim)
        self.fc7 = nn.Linear(dim, dim)
        for layer in (self.fc6, self.fc7):
            _init_hidden(layer)

    def forward(self, regions: Float[Tensor, "NR C h w"]) -> Float[Tensor, "NR dim"]:
        hidden = F.dropout(F.relu(self.fc6(regions.flatten(1))), self.dropout, self.training)
        return F.dropout(F.relu(self.fc7(hidden)), self.dropout, self.training)


class FourConvBoxHead(BoxHead, nn.Sequential):
    """Four 3x3 convolutions and one fully connected layer (Wu & He 2018, "Group Normalization", section 4.2).

    The numbers of its layers are those of torchvision's FastRCNNConvFCHead.

    Args:
        norm: makes a normalization layer for a number of channels; None: convolutions with a bias.
    """

    def __init__(
        self, in_channels: int, resolution: int, dim: int, *, norm: Callable[[int], nn.Module] | None = None
    ) -> None:
        super().__init__(*(_conv(in_channels, norm) for _ in range(4)))
        self.out_channels = dim
        fc = nn.Linear(in_channels * resolution**2, dim)
        _init_hidden(fc)
        _ = self.extend([nn.Flatten(), fc, nn.ReLU(inplace=True)])

    def forward(self, input: Float[Tensor, "NR C h w"]) -> Float[Tensor, "NR dim"]:
        return super().forward(input)


class C5BoxHead(BoxHead):
    """A ResNet's conv5 on each region, then the mean over the region (He et al. 2015, appendix A).

    A mask head uses the output of conv5 for a region before the mean (He et al. 2017, figure 4).

    Args:
        layer4: conv5, removed from the backbone; it keeps its name.
        out_channels: the output channels of conv5.
    """

    def __init__(self, layer4: nn.Module, out_channels: int) -> None:
        super().__init__()
        self.layer4 = layer4
        self.out_channels = self.map_channels = out_channels

    def maps(self, regions: Float[Tensor, "NR C _h _w"]) -> Float[Tensor, "NR dim h w"]:
        return self.layer4(regions)

    def forward(self, maps: Float[Tensor, "NR dim h w"]) -> Float[Tensor, "NR dim"]:
        return maps.mean(dim=(2, 3))


class BoxPredictor(nn.Module):
    """Two sibling layers: logits of K classes and the background (last), and deltas for each class.

    Args:
        class_agnostic: one set of deltas for all classes, in the place of the K.
    """

    def __init__(self, in_channels: int, num_classes: int, *, class_agnostic: bool = False) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.cls_score = nn.Linear(in_channels, num_classes + 1)
        self.bbox_pred = nn.Linear(in_channels, 4 if class_agnostic else num_classes * 4)
        nn.init.normal_(self.cls_score.weight, std=0.01)
        nn.init.normal_(self.bbox_pred.weight, std=0.001)
        nn.init.zeros_(self.cls_score.bias)
        nn.init.zeros_(self.bbox_pred.bias)

    def forward(self, features: Float[Tensor, "NR dim"]) -> tuple[Float[Tensor, "NR K_1"], Float[Tensor, "NR K 4"]]:
        deltas = self.bbox_pred(features).unflatten(1, (-1, 4))
        return self.cls_score(features).float(), deltas.float()


def _conv(channels: int, norm: Callable[[int], nn.Module] | None) -> nn.Sequential:
    conv = nn.Conv2d(channels, channels, 3, padding=1, bias=norm is None)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if norm is None:
        nn.init.zeros_(conv.bias)  # pyright: ignore[reportArgumentType]  # there is a bias without a norm
    return nn.Sequential(conv, *([] if norm is None else [norm(channels)]), nn.ReLU(inplace=True))


def _init_hidden(layer: nn.Linear) -> None:
    nn.init.kaiming_uniform_(layer.weight, a=1)  # Detectron's initialization
    nn.init.zeros_(layer.bias)
