"""Image classifiers: any backbone with global average pooling and one linear layer (He et al. 2015, table 1), with the
two fully connected layers of a VGG before it, or one of timm's complete classifiers; and ensembles of them.
"""

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

NO_LABEL = -100  # of an image that could not be read; PyTorch's own default
FC_SIDE = 7  # cells a side of the map that a VGG's fc6 sees


class Classifier(Normalized):
    """`model(batch)` returns the loss by name, `model.predict(batch)` returns the probability of each class.

    The class of an image is the label of its one target, and images are not padded. On an image that is larger than the
    training images, the net is fully convolutional: the logits are the mean over the places where its layers fit.

    Args:
        hidden: layers between the backbone's last map and the last layer; None: none.
        hidden_channels: of their output.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        hidden: nn.Module | None = None,
        hidden_channels: int = 0,
    ) -> None:
        super().__init__(pixel_mean, pixel_std)
        self.backbone = backbone
        self.hidden = hidden
        self.fc = nn.Linear(backbone.channels[-1] if hidden is None else hidden_channels, num_classes)

    def forward(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """The cross entropy, by name; see `mean_losses`."""
        return values(self.mean_losses(batch))

    def mean_losses(self, batch: Batch) -> dict[str, MeanLoss]:
        """`loss_classifier`: the cross entropy of the images whose target is valid. The batch must have one target per
        image.
        """
        targets = batch.targets
        assert targets is not None, "losses need targets: a batch without them can only be predicted"
        labels = torch.where(targets.valid, targets.labels, NO_LABEL).squeeze(1)
        total = F.cross_entropy(self.logits(batch).float(), labels, ignore_index=NO_LABEL, reduction="sum")
        return {"loss_classifier": MeanLoss(total, targets.valid.sum())}

    @torch.no_grad()
    def predict(self, batch: Batch) -> Float[Tensor, "N K"]:
        """Probabilities of the classes."""
        return self.logits(batch).float().softmax(dim=1)

    def logits(self, batch: Batch) -> Float[Tensor, "N K"]:
        *_, last = self.backbone(self.zero_mean(batch))
        if self.hidden is not None:
            last = self.hidden(last)
        # the last layer is linear, so the mean of its results is its result for the mean
        return self.fc(last.mean(dim=(2, 3)))


def fully_connected(channels: int, width: int, *, dropout: float) -> nn.Sequential:
    """fc6 and fc7 of a VGG as convolutions, so that they run on a map of any size from 7x7 (Simonyan & Zisserman 2014,
    section 3.2).
    """
    return nn.Sequential(
        nn.Conv2d(channels, width, FC_SIDE),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Conv2d(width, width, 1),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
    )


class WholeClassifier(Classifier):
    """A complete classifier of another library: `net` gives the logits of normalized images."""

    def __init__(self, net: nn.Module, *, pixel_mean: Sequence[float], pixel_std: Sequence[float]) -> None:
        Normalized.__init__(self, pixel_mean, pixel_std)
        self.net = net

    def logits(self, batch: Batch) -> Float[Tensor, "N K"]:
        return self.net(self.zero_mean(batch))


class ClassifierEnsemble(nn.Module):
    """The mean of the members' probabilities (He et al. 2015, table 5)."""

    def __init__(self, members: Sequence[Classifier]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    @torch.no_grad()
    def predict(self, batch: Batch) -> Float[Tensor, "N K"]:
        return torch.stack([member.predict(batch) for member in self.members]).mean(dim=0)  # pyright: ignore[reportCallIssue]
