"""Global context: the vector of the whole image is joined to that of each region (He et al. 2015, appendix B)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def with_image_box(boxes: Float[Tensor, "N R 4"], sizes: Int64[Tensor, "N 2"]) -> Float[Tensor, "N R_1 4"]:
    """Inserts the box of the whole image before its regions, so that it is pooled and processed in the same way."""
    height, width = sizes.to(boxes.dtype).unbind(1)
    whole = torch.stack([torch.zeros_like(width), torch.zeros_like(height), width, height], dim=1)
    return torch.cat([whole[:, None], boxes], dim=1)


def join_image_vector(vectors: Float[Tensor, "N R_1 dim"]) -> Float[Tensor, "N R dim_2"]:
    """Joins to each region's vector the vector of the whole image, which is the first in `vectors`."""
    image, regions = vectors[:, :1], vectors[:, 1:]
    return torch.cat([regions, image.expand_as(regions)], dim=2)
