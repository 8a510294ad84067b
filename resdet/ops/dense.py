"""Operations on dense lists and images: entries selected by position, padding set to zero, and constants."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor


def constants(values: Sequence[float | int], like: Tensor) -> Shaped[Tensor, " values"]:
    """The numbers as a tensor of the type and on the device of another, made there.

    `new_tensor` and `torch.tensor` copy from the host, which waits until a GPU has done all that came before.
    """
    return torch.stack([like.new_full((), value) for value in values])


def take(values: Shaped[Tensor, "N M *S"], index: Int64[Tensor, "N k"]) -> Shaped[Tensor, "N k *S"]:
    """The rows of each image at the positions `index`, in that order. For a list without rows the result is zeros."""
    shape = values.shape[2:]
    if values.shape[1] == 0:
        return values.new_zeros(*index.shape, *shape)
    return values.gather(1, index.view(*index.shape, *[1] * len(shape)).expand(*index.shape, *shape))


def zero_padding(values: Shaped[Tensor, "N M *S"], valid: Bool[Tensor, "N M"]) -> Shaped[Tensor, "N M *S"]:
    """The valid rows, and exactly zero in place of the others, even if these are not finite.

    A product with `valid` would not have this effect, because infinity times zero is NaN.
    """
    return torch.where(valid.view(*valid.shape, *[1] * (values.ndim - 2)), values, 0)


def of_class(values: Shaped[Tensor, "N R B *S"], labels: Int64[Tensor, "N R"]) -> Shaped[Tensor, "N R *S"]:
    """Selects for each region, which has B entries (one per class), the entry of its label; with B = 1, the only entry.

    The background has no entry, so it gets that of another class.
    """
    shape = values.shape[3:]
    own = labels.clamp(max=values.shape[2] - 1).view(*labels.shape, 1, *[1] * len(shape))
    return values.gather(2, own.expand(*labels.shape, 1, *shape)).squeeze(2)


def inside(sizes: Int64[Tensor, "N 2"], height: int, width: int) -> Bool[Tensor, "N 1 {height} {width}"]:
    """Which pixels of a padded batch of `height` x `width` belong to each image."""
    below = torch.arange(height, device=sizes.device)[:, None] < sizes[:, 0, None, None, None]
    left = torch.arange(width, device=sizes.device) < sizes[:, 1, None, None, None]
    return below & left
