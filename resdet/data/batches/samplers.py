"""Selects the images of the batch at a step by pure functions of the step, so that a resume needs no other state."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64, Int64


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """One number in [0, 2**32) that determines all randomness of a sample, in every process."""
    digest = hashlib.blake2b(f"{seed} {epoch} {index}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")


@dataclass(frozen=True)
class BatchOrder:
    """The order of a training run's global batches.

    Every epoch is a permutation of the images, or of those that `expected` draws, cut into batches of one group each
    (landscape or portrait, to reduce padding). The images that are left over form mixed batches; the last batch is
    filled up with images from the beginning of the epoch.

    A batch has keys: that of an image is its index, and that of its further copies in an epoch is larger by N, 2 N, ...
    so that each copy has randomness of its own.
    """

    groups: Int64[np.ndarray, " N"]  # for each image
    batch_size: int
    seed: int
    expected: Float64[np.ndarray, " N"] | None = None  # how often an epoch shows each image on average; None: once

    @cached_property
    def images_per_epoch(self) -> int:
        return len(self.groups) if self.expected is None else round(float(self.expected.sum()))

    @property
    def batches_per_epoch(self) -> int:
        return -(-self.images_per_epoch // self.batch_size)

    def epoch(self, epoch: int) -> Int64[np.ndarray, "batches batch_size"]:
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.groups) if self.expected is None else self._drawn(self.expected, rng))
        groups = self.groups[order % len(self.groups)]
        members = [order[groups == group] for group in np.unique(self.groups)]
        cuts = [len(member) - len(member) % self.batch_size for member in members]
        whole = np.concatenate([member[:cut] for member, cut in zip(members, cuts, strict=True)])
        rest = np.concatenate([member[cut:] for member, cut in zip(members, cuts, strict=True)])
        wrapped = np.resize(order, -len(order) % self.batch_size)
        batches = np.concatenate((whole, rest, wrapped)).reshape(-1, self.batch_size)
        return batches[rng.permutation(len(batches))]

    def _drawn(self, expected: Float64[np.ndarray, " N"], rng: np.random.Generator) -> Int64[np.ndarray, " _"]:
        """The keys of an epoch. Systematic sampling: an image is there as often as expected, rounded down or up, and on
        average over the epochs exactly as often; the number of all is always the same.
        """
        line = rng.permutation(len(expected))
        ends = np.cumsum(expected[line])
        ends[-1] = self.images_per_epoch  # without the rounding of the sum
        counts = np.diff(np.floor(ends + rng.random()), prepend=0).astype(np.int64)
        images = np.repeat(line, counts)
        copies = np.arange(len(images)) - np.repeat(np.cumsum(counts) - counts, counts)
        return images + len(expected) * copies

    def from_step(self, step: int) -> Iterator[tuple[int, Int64[np.ndarray, " batch_size"]]]:
        """(epoch, keys of the global batch) from a step on, counted from 0, in an infinite iterator."""
        epoch, position = divmod(step, self.batches_per_epoch)
        while True:
            for batch in self.epoch(epoch)[position:]:
                yield epoch, batch
            epoch, position = epoch + 1, 0


def rank_slice(batch: Int64[np.ndarray, " n"], rank: int, world_size: int) -> Int64[np.ndarray, " m"]:
    """The contiguous share of a process in a global batch; `world_size` divides the size of the batch."""
    share = len(batch) // world_size
    return batch[rank * share : (rank + 1) * share]


def evaluation_order(
    heights: Int64[np.ndarray, " N"], widths: Int64[np.ndarray, " N"], batch_size: int
) -> list[Int64[np.ndarray, " _"]]:
    """Every image once, images of similar shape together; processes take every `world_size`-th batch."""
    order = np.lexsort((np.arange(len(heights)), heights * widths, widths > heights, widths / heights))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
