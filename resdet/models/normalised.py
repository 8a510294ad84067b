"""What every model has that takes images in 0..255: the mean and deviation that they are normalised by."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resdet.structures import Batch

Normalisation = tuple[list[float], list[float]]  # mean and deviation: R, G, B in 0..255


class Normalised(nn.Module):
    """A model that normalises its images itself. Its buffers alone say how; a model file states them in its contract.

    The buffers are no part of the state dict, which has the same names whatever the images are.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, pixel_mean: Sequence[float], pixel_std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(3, 1, 1), persistent=False)

    @property
    def normalisation(self) -> Normalisation:
        """Mean and deviation that images are normalised by: R, G, B in 0..255, as short as float32 can be written."""
        mean, std = (values.flatten().cpu().numpy().astype(str) for values in (self.pixel_mean, self.pixel_std))
        return mean.astype(float).tolist(), std.astype(float).tolist()

    def normalise_by(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """As weights that were loaded later ask for."""
        for buffer, values in ((self.pixel_mean, mean), (self.pixel_std, std)):
            _ = buffer.copy_(torch.tensor(values).view(3, 1, 1))

    def zero_mean(self, batch: Batch) -> Float[Tensor, "N 3 H W"]:
        """Zero mean and unit deviation over each image and its padding."""
        return (batch.images.float() - self.pixel_mean) / self.pixel_std
