"""Mask heads: predict for each region which of its cells belong to the object (He et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from resdet.models.losses import MeanLoss
from resdet.models.second_stage.roi_pooler import Pool
from resdet.ops.dense import of_class, take, zero_padding
from resdet.ops.masks import crop_masks
from resdet.structures import Detections, Targets


class MaskHead(nn.Module):
    """3x3 convolutions, an upsampling by two, and one mask for each class (He et al. 2017, figure 4).

    With a pyramid it has four convolutions; on the output of conv5 (C4) it has none. Layers have Detectron2's names.

    Args:
        in_channels: of a region.
        masks: one per class, or 1 for all classes together.
        convs, channels: of the layers before the masks.
        norm: makes a normalization layer for a number of channels; None: convolutions with a bias.
    """

    def __init__(
        self,
        in_channels: int,
        masks: int,
        *,
        convs: int = 4,
        channels: int = 256,
        norm: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.convs = [f"mask_fcn{number}" for number in range(1, convs + 1)]
        for name in self.convs:
            self.add_module(name, NormedConv(in_channels, channels, norm))
            in_channels = channels
        self.deconv = nn.ConvTranspose2d(in_channels, channels, 2, stride=2)
        self.predictor = nn.Conv2d(channels, masks, 1)
        _init_hidden(self.deconv)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)  # pyright: ignore[reportArgumentType]  # there is a bias

    def forward(self, regions: Float[Tensor, "NR C h w"]) -> Float[Tensor, "NR K 2*h 2*w"]:
        """Logits of each cell."""
        for name in self.convs:
            regions = self.get_submodule(name)(regions)
        return self.predictor(F.relu(self.deconv(regions))).float()

    def losses(
        self,
        pool: Pool,
        boxes: Float[Tensor, "N R 4"],
        labels: Int64[Tensor, "N R"],
        matched: Int64[Tensor, "N R"],
        positive: Bool[Tensor, "N R"],
        targets: Targets,
    ) -> dict[str, MeanLoss]:
        """`loss_mask` over the regions that are `positive` and whose object (the slot `matched`) has a mask."""
        assert targets.masks is not None, "a mask head learns from masks: these targets have none"
        logits = self(pool(boxes)).unflatten(0, boxes.shape[:2])
        frames = take(targets.boxes, matched)
        wanted = crop_masks(targets.masks, frames, matched, boxes, logits.shape[-1])
        has_mask = take(targets.masks.flatten(2).amax(-1) > 0, matched)
        return {"loss_mask": mask_loss(logits, labels, wanted, positive & has_mask)}

    def predict(self, pool: Pool, detections: Detections) -> Detections:
        """The detections with the masks of their classes: probabilities, zero where there is no detection."""
        boxes, labels, valid = detections.boxes, detections.labels, detections.valid
        logits = self(pool(boxes)).unflatten(0, boxes.shape[:2])
        masks = zero_padding(of_class(logits, labels).sigmoid(), valid)
        return Detections(boxes=boxes, scores=detections.scores, labels=labels, valid=valid, masks=masks)


class NormedConv(nn.Conv2d):
    """A 3x3 convolution, its normalization and a ReLU."""

    def __init__(self, in_channels: int, channels: int, norm: Callable[[int], nn.Module] | None) -> None:
        super().__init__(in_channels, channels, 3, padding=1, bias=norm is None)
        self.norm = nn.Identity() if norm is None else norm(channels)
        _init_hidden(self)

    def forward(self, input: Float[Tensor, "NR C h w"]) -> Float[Tensor, "NR D h w"]:
        return F.relu(self.norm(super().forward(input)))


def mask_loss(
    logits: Float[Tensor, "N R K M M"],
    labels: Int64[Tensor, "N R"],
    wanted: Bool[Tensor, "N R M M"],
    counted: Bool[Tensor, "N R"],
) -> MeanLoss:
    """The mean binary cross entropy over the cells of the regions that count; 0 if there are none.

    Masks of other classes than a region's own do not contribute to the loss, so classes do not compete (He et al. 2017,
    section 3).
    """
    each = F.binary_cross_entropy_with_logits(of_class(logits, labels), wanted.to(logits), reduction="none")
    return MeanLoss(zero_padding(each.mean((2, 3)), counted).sum(), counted.sum())


def _init_hidden(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
