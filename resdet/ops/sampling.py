"""Balanced random sampling of examples, dense and without state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class Samples:
    """The selected candidates, S slots per image, positives first. A slot that is not `valid` must be ignored."""

    index: Int64[Tensor, "N S"]
    positive: Bool[Tensor, "N S"]
    valid: Bool[Tensor, "N S"]


@dataclass(frozen=True)
class BalancedSampler:
    """Selects at most `size * positive_fraction` positives, and negatives up to `size` (Girshick 2015, section 2.3)."""

    size: int
    positive_fraction: float

    @property
    def most_positives(self) -> int:
        """The number of slots that can be positive; they come first."""
        return max(1, int(self.size * self.positive_fraction))

    def __call__(
        self, positive: Bool[Tensor, "N A"], negative: Bool[Tensor, "N A"], seeds: Int64[Tensor, " N"]
    ) -> Samples:
        keys = random_keys(seeds, positive.shape[1])
        size = min(self.size, positive.shape[1])
        quota = min(self.most_positives, positive.shape[1])
        positive_keys, positive_index = keys.masked_fill(~positive, -1).topk(quota)
        negative_keys, negative_index = keys.masked_fill(~negative, -1).topk(size)
        slot = torch.arange(size, device=keys.device).expand(len(seeds), -1)
        positives = (positive_keys >= 0).sum(dim=1, keepdim=True)
        is_positive = slot < positives
        later = (slot - positives).clamp(min=0)
        index = torch.where(
            is_positive, positive_index.gather(1, slot.clamp(max=quota - 1)), negative_index.gather(1, later)
        )
        return Samples(index, is_positive, is_positive | (negative_keys.gather(1, later) >= 0))


def random_keys(seeds: Int64[Tensor, " N"], count: int) -> Int64[Tensor, "N count"]:
    """For each seed a row of pseudo-random integers in [0, 2**31): a hash of (seed, position).

    There is no generator state: the keys of an image are the same in every batch, process, device and compiled graph.
    """
    position = torch.arange(count, device=seeds.device)
    return _mix(_mix(seeds[:, None] & MASK) ^ _mix(position + 0x9E3779B9)) >> 1


def _mix(x: Tensor) -> Tensor:
    """Murmur3's 32-bit finalizer (public domain), on int64 so that products overflow in the same way on
    every device.
    """
    x = x & MASK
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & MASK
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & MASK
    return x ^ (x >> 16)
