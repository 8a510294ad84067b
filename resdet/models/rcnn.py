"""The R-CNN family: a backbone, a neck, a first and a second stage (Ren et al. 2015, figure 2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from resdet.models.backbones import Backbone
from resdet.models.losses import MeanLoss, values
from resdet.models.necks import FeaturePyramidNetwork, SingleLevel
from resdet.models.normalized import Normalized
from resdet.models.rpn import RPN, ProposalLimits
from resdet.models.second_stage.roi_heads import RoIHeads
from resdet.ops.dense import inside
from resdet.structures import Batch, Detections, Proposals


class RCNN(Normalized):
    """`model(batch)` returns the training losses by name, `model.predict(batch)` returns detections.

    Both run the same dense graph for any number of images. `model.training` only affects normalization layers and
    dropout, not which of the two is used. `notes` are lines for a log about the construction of the model.
    """

    def __init__(
        self,
        backbone: Backbone,
        neck: FeaturePyramidNetwork | SingleLevel,
        rpn: RPN,
        roi_heads: RoIHeads | None,
        *,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        train_limits: ProposalLimits,
        test_limits: ProposalLimits,
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(pixel_mean, pixel_std)
        self.backbone = backbone
        self.neck = neck
        self.rpn = rpn
        self.roi_heads = roi_heads
        self.train_limits = train_limits
        self.test_limits = test_limits
        self.notes = tuple(notes)

    def forward(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """The training losses, by name; see `mean_losses`."""
        return values(self.mean_losses(batch))

    def mean_losses(self, batch: Batch) -> dict[str, MeanLoss]:
        """The training losses, by name, as sums and numbers of entries. The batch must have targets; if it has
        proposals, only the second stage is trained, on them.
        """
        assert batch.targets is not None, "losses need targets: a batch without them can only be predicted"
        features = self.neck(self.backbone(self.normalized(batch)))
        if batch.proposals is not None and self.roi_heads is not None:
            return self.roi_heads.losses(features, batch.proposals, batch.targets, batch.sizes)
        rpn = self.rpn(features)
        losses = self.rpn.losses(rpn, batch.targets, batch.sizes)
        if self.roi_heads is None:
            return losses
        proposals = self.rpn.proposals(rpn, batch.sizes, self.train_limits)
        return losses | self.roi_heads.losses(features, proposals, batch.targets, batch.sizes)

    @torch.no_grad()
    def propose(self, batch: Batch) -> Proposals:
        """The first stage's proposals with the limits of training."""
        features = self.neck(self.backbone(self.normalized(batch)))
        return self.rpn.proposals(self.rpn(features), batch.sizes, self.train_limits)

    @torch.no_grad()
    def predict(self, batch: Batch) -> Detections:
        """Detections in pixels of the padded input."""
        features = self.neck(self.backbone(self.normalized(batch)))
        rpn = self.rpn(features)
        if self.roi_heads is None:
            return self.rpn.detections(rpn, batch.sizes, self.test_limits)
        proposals = self.rpn.proposals(rpn, batch.sizes, self.test_limits)
        return self.roi_heads.predict(features, proposals, batch.sizes)

    def normalized(self, batch: Batch) -> Float[Tensor, "N 3 H W"]:
        """Zero mean and unit deviation inside each image, and exactly zero in the padding."""
        images = self.zero_mean(batch)
        return torch.where(inside(batch.sizes, *images.shape[2:]), images, 0)
