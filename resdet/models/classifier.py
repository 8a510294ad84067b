"""An image classifier on any backbone: global average pooling and one linear layer (He et al. 2015, table 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from resdet.models.backbones import Backbone
from resdet.models.losses import MeanLoss, values
from resdet.models.normalized import Normalized
from resdet.structures import Batch

NOT_COUNTED = -100  # the label of an image without a valid target


class Classifier(Normalized):
    """`model(batch)` returns the loss by name, `model.predict(batch)` returns the probability of each class.

    The class of an image is the label of its one target, and images are not padded.
    """

    def __init__(
        self, backbone: Backbone, num_classes: int, *, pixel_mean: Sequence[float], pixel_std: Sequence[float]
    ) -> None:
        super().__init__(pixel_mean, pixel_std)
        self.backbone = backbone
        self.fc = nn.Linear(backbone.channels[-1], num_classes)

    def forward(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """The cross entropy, by name; see `mean_losses`."""
        return values(self.mean_losses(batch))

    def mean_losses(self, batch: Batch) -> dict[str, MeanLoss]:
        """`loss_classifier`: the cross entropy of the images whose target is valid. The batch must have targets, one
        per image.
        """
        assert batch.targets is not None, "losses need targets: a batch without them can only be predicted"
        labels, valid = batch.targets.labels.squeeze(1), batch.targets.valid.squeeze(1)
        counted = torch.where(valid, labels, NOT_COUNTED)
        total = F.cross_entropy(self.logits(batch).float(), counted, ignore_index=NOT_COUNTED, reduction="sum")
        return {"loss_classifier": MeanLoss(total, valid.sum())}

    @torch.no_grad()
    def predict(self, batch: Batch) -> Float[Tensor, "N K"]:
        """Probabilities of the classes."""
        return self.logits(batch).float().softmax(dim=1)

    def logits(self, batch: Batch) -> Float[Tensor, "N K"]:
        *_, last = self.backbone(self.zero_mean(batch))
        return self.fc(last.mean(dim=(2, 3)))
