"""Global context: each region is also told what the whole image looks like (He et al. 2015, appendix B)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def with_image_box(boxes: Float[Tensor, "N R 4"], sizes: Int64[Tensor, "N 2"]) -> Float[Tensor, "N R_1 4"]:
    """The box of the whole image in front of its regions, so that it takes the same way as they do."""
    height, width = sizes.to(boxes.dtype).unbind(1)
    whole = torch.stack([torch.zeros_like(width), torch.zeros_like(height), width, height], dim=1)
    return torch.cat([whole[:, None], boxes], dim=1)


def join_image_vector(vectors: Float[Tensor, "N R_1 dim"]) -> Float[Tensor, "N R dim_2"]:
    """Each region's vector followed by that of the whole image, which comes first in `vectors`."""
    image, regions = vectors[:, :1], vectors[:, 1:]
    return torch.cat([regions, image.expand_as(regions)], dim=2)
