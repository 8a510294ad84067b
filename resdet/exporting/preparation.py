"""The preparation of images as part of a graph: resized by the rule of `data.augment`, padded, with their sizes.

Sizes are symbols while a graph is exported, so the arithmetic is that of whole numbers. An axis is resized by a matrix
of weights, because no operator of the runtimes has OpenCV's averages over areas.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from resdet.structures import Batch

SMALLEST_SIDE = 16  # pixels, as in `data.batches.collate`


@dataclass(frozen=True)
class Preparation:
    """The sides in pixels that images are resized to, and the number of which padded sides are multiples."""

    short_side: int
    max_side: int
    divisor: int

    def resized_size(self, height: int, width: int) -> tuple[int, int]:
        """The size after resizing (`data.images.decode.resized_size`), in whole numbers alone."""
        short, long = torch.sym_min(height, width), torch.sym_max(height, width)
        sides = (
            torch.sym_min(
                (2 * side * self.short_side + short) // (2 * short), (2 * side * self.max_side + long) // (2 * long)
            )
            for side in (height, width)
        )
        resized_height, resized_width = (torch.sym_max(1, side) for side in sides)
        return resized_height, resized_width  # pyright: ignore[reportReturnType]

    def padded(self, side: int) -> int:
        """A side of the batch."""
        return -(-torch.sym_max(SMALLEST_SIDE, side) // self.divisor) * self.divisor  # pyright: ignore[reportReturnType]

    def batch(self, images: UInt8[Tensor, "N H W 3"]) -> Batch:
        """RGB images of one size, resized and padded with zeros."""
        height, width = images.shape[1:3]
        new_height, new_width = self.resized_size(height, width)
        pixels = resized(images.permute(0, 3, 1, 2).float(), new_height, new_width)
        pixels = F.pad(pixels, (0, self.padded(new_width) - new_width, 0, self.padded(new_height) - new_height))
        return Batch(pixels, sizes_of(images, new_height, new_width))

    def in_given(self, boxes: Float[Tensor, "N D 4"], images: UInt8[Tensor, "N H W 3"]) -> Float32[Tensor, "N D 4"]:
        """Boxes of the batch in pixels of the given images, clipped to them."""
        height, width = images.shape[1:3]
        given = sizes_of(images, height, width).float()
        scale = sizes_of(images, *self.resized_size(height, width)).float() / given
        limits = given.flip(-1).repeat(1, 2)[:, None]
        return torch.minimum((boxes / scale.flip(-1).repeat(1, 2)[:, None]).clamp(min=0), limits)


def sizes_of(images: UInt8[Tensor, "N H W 3"], height: int, width: int) -> Int64[Tensor, "N 2"]:
    """The same size for each image of a batch."""
    count = images.shape[0]
    sides = [torch.full((count,), side, dtype=torch.int64, device=images.device) for side in (height, width)]
    return torch.stack(sides, dim=1)


def resized(images: Float32[Tensor, "N C H W"], height: int, width: int) -> Float32[Tensor, "N C h w"]:
    """Averages over areas to reduce, bilinear interpolation to enlarge, rounded to whole numbers, as
    `data.images.decode.resize`: the rule is the same, and OpenCV's own rounding differs by 1 in a few pixels.
    """
    pixels = images.shape[2] * images.shape[3]
    down, across = (
        _weights(old, new, pixels, height * width, images.device)
        for old, new in ((images.shape[2], height), (images.shape[3], width))
    )
    return (down @ images @ across.T).round().clamp(0, 255)


def _weights(old: int, new: int, pixels: int, new_pixels: int, device: torch.device) -> Float32[Tensor, "new old"]:
    """The share of each old pixel in each new one."""
    averages, between = area_weights(old, new, device), linear_weights(old, new, device)
    shrinks = torch.full((1,), new_pixels, device=device) < torch.full((1,), pixels, device=device)
    return torch.where(shrinks, averages, between)


def area_weights(old: int, new: int, device: torch.device) -> Float32[Tensor, "new old"]:
    """The common length of each new pixel and each old one, as a share of the new one's length.

    In units of 1 / (old * new) of the side, pixel i reaches from i * old to (i + 1) * old, and an old pixel is `new`
    long.
    """
    start = (torch.arange(new, device=device) * old)[:, None]
    old_start = torch.arange(old, device=device) * new
    common = torch.minimum(start + old, old_start + new) - torch.maximum(start, old_start)
    return common.clamp(min=0).float() / torch.full((1,), old, device=device).float()


def linear_weights(old: int, new: int, device: torch.device) -> Float32[Tensor, "new old"]:
    """The weights of the two nearest old pixels, whose distances are measured between centres.

    In units of 1 / (2 * new) old pixels, new pixel i has its centre at (2 i + 1) old - new, measured from the centre of
    the first old pixel; at the border it is moved to the nearest centre.
    """
    centre = ((torch.arange(new, device=device) * 2 + 1) * old - new).clamp(min=0)
    last = torch.full((1,), 2 * new * (old - 1), device=device)
    centre = torch.minimum(centre, last)[:, None]
    distance = (centre - torch.arange(old, device=device) * (2 * new)).abs()
    length = torch.full((1,), 2 * new, device=device)
    return (length - distance).clamp(min=0).float() / length.float()
