"""The box head: what each region is and where exactly (Girshick 2015; Lin et al. 2017, section 4.2)."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class TwoLayerBoxHead(nn.Module):
    """Two hidden fully connected layers over the flattened region."""

    def __init__(self, in_channels: int, resolution: int, dim: int) -> None:
        super().__init__()
        self.out_channels = dim
        self.fc6 = nn.Linear(in_channels * resolution**2, dim)
        self.fc7 = nn.Linear(dim, dim)
        for layer in (self.fc6, self.fc7):
            nn.init.kaiming_uniform_(layer.weight, a=1)  # Detectron's initialisation
            nn.init.zeros_(layer.bias)

    def forward(self, regions: Float[Tensor, "NR C h w"]) -> Float[Tensor, "NR dim"]:
        return F.relu(self.fc7(F.relu(self.fc6(regions.flatten(1)))))


class BoxPredictor(nn.Module):
    """Two sibling layers: logits of K classes and the background (last), and deltas for each class."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.cls_score = nn.Linear(in_channels, num_classes + 1)
        self.bbox_pred = nn.Linear(in_channels, num_classes * 4)
        nn.init.normal_(self.cls_score.weight, std=0.01)
        nn.init.normal_(self.bbox_pred.weight, std=0.001)
        nn.init.zeros_(self.cls_score.bias)
        nn.init.zeros_(self.bbox_pred.bias)

    def forward(self, features: Float[Tensor, "NR dim"]) -> tuple[Float[Tensor, "NR K_1"], Float[Tensor, "NR K 4"]]:
        deltas = self.bbox_pred(features).unflatten(1, (self.num_classes, 4))
        return self.cls_score(features).float(), deltas.float()
