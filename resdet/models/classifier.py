"""An image classifier on any backbone: global average pooling and one linear layer (He et al. 2015, table 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from resdet.models.backbones import Backbone
from resdet.structures import Batch


class Classifier(nn.Module):
    """`model(batch)` returns the loss by name, `model.predict(batch)` returns the probability of each class.

    The class of an image is the label of its one target, and images are not padded. `normalisation` is the mean and
    deviation of images, R, G, B in 0..255.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self, backbone: Backbone, num_classes: int, *, pixel_mean: Sequence[float], pixel_std: Sequence[float]
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.fc = nn.Linear(backbone.channels[-1], num_classes)
        self.normalisation = list(pixel_mean), list(pixel_std)
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(3, 1, 1), persistent=False)

    def forward(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """The cross entropy. The batch must have targets, one per image."""
        assert batch.targets is not None, "losses need targets: a batch without them can only be predicted"
        labels = batch.targets.labels.squeeze(1)
        return {"loss_classifier": F.cross_entropy(self.logits(batch).float(), labels)}

    @torch.no_grad()
    def predict(self, batch: Batch) -> Float[Tensor, "N K"]:
        """Probabilities of the classes."""
        return self.logits(batch).float().softmax(dim=1)

    def logits(self, batch: Batch) -> Float[Tensor, "N K"]:
        *_, last = self.backbone((batch.images.float() - self.pixel_mean) / self.pixel_std)
        return self.fc(last.mean(dim=(2, 3)))
