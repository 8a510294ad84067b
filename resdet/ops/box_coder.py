"""Encodes boxes as offsets from reference boxes (Girshick et al. 2014, appendix C)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from resdet.ops.dense import constants

LARGEST_LOG_SCALE = math.log(1000 / 16)  # exp(dw) overflows early in training: this is Detectron's clamp


@dataclass(frozen=True)
class BoxCoder:
    """Deltas (dx, dy, dw, dh): the shift of the centre divided by the reference's size, and the logarithm of the scale.

    `weights` multiply the deltas, so that the regression targets have a standard deviation near one:
    (1, 1, 1, 1) for the RPN, (10, 10, 5, 5) for the box head.
    """

    weights: tuple[float, float, float, float]

    def encode(self, boxes: Float[Tensor, "*S 4"], references: Float[Tensor, "*S 4"]) -> Float[Tensor, "*S 4"]:
        """Deltas from each reference to its box. Sides are at least 1e-6 pixels in the computation."""
        centre, size = _centre_and_size(boxes)
        reference_centre, reference_size = _centre_and_size(references)
        size, reference_size = size.clamp(min=1e-6), reference_size.clamp(min=1e-6)
        shift = (centre - reference_centre) / reference_size
        return torch.cat([shift, (size / reference_size).log()], dim=-1) * constants(self.weights, boxes)

    def decode(self, deltas: Float[Tensor, "*S 4"], references: Float[Tensor, "*#S 4"]) -> Float[Tensor, "*S 4"]:
        """The boxes for the deltas. This is the inverse of `encode` up to a scale of 1000 / 16."""
        deltas = deltas / constants(self.weights, deltas)
        centre, size = _centre_and_size(references)
        centre = centre + deltas[..., :2] * size
        half = size * deltas[..., 2:].clamp(max=LARGEST_LOG_SCALE).exp() / 2
        return torch.cat([centre - half, centre + half], dim=-1)


def _centre_and_size(boxes: Float[Tensor, "*S 4"]) -> tuple[Float[Tensor, "*S 2"], Float[Tensor, "*S 2"]]:
    size = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + size / 2, size
