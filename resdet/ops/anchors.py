"""Anchors: a few boxes of fixed shapes at every cell of every feature map (Ren et al. 2015, section 3.1.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def cell_anchors(
    sizes: Sequence[float], ratios: Sequence[float], *, rounded: bool = False
) -> Float[Tensor, "cell_anchors 4"]:
    """Anchors of one cell, centred on the origin: for each size, one per ratio.

    Args:
        sizes: square roots of the areas, in pixels.
        ratios: height over width.
        rounded: round the corners to whole pixels, as torchvision does.
    """
    roots = torch.tensor(ratios, dtype=torch.float32).sqrt()
    scale = torch.tensor(sizes, dtype=torch.float32)[:, None]
    half_width, half_height = (scale / roots / 2).flatten(), (scale * roots / 2).flatten()
    anchors = torch.stack([-half_width, -half_height, half_width, half_height], dim=-1)
    return anchors.round() if rounded else anchors


def grid_anchors(cell: Float[Tensor, "cell_anchors 4"], height: int, width: int, stride: int) -> Float[Tensor, "A 4"]:
    """The anchors of a cell at every position of a feature map of `height` x `width` cells, row by row.

    Cell (0, 0) is centred on pixel (0, 0), as in Detectron2 and torchvision.
    """
    y = torch.arange(height, device=cell.device, dtype=cell.dtype) * stride
    x = torch.arange(width, device=cell.device, dtype=cell.dtype) * stride
    centres = torch.stack([*torch.meshgrid(y, x, indexing="ij")][::-1] * 2, dim=-1)  # (height, width, 4)
    return (centres[:, :, None] + cell).reshape(-1, 4)
