"""Groups of different lengths in one flat array: group g has the members `offsets[g] : offsets[g + 1]`."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64, Shaped

PORTION = 2**16  # groups that are copied at a time: bounds the memory of their indices


def row_offsets(lengths: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n+1"]:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)))


def take_groups(
    offsets: Int64[np.ndarray, " g1"], groups: Int64[np.ndarray, " t"]
) -> tuple[Int64[np.ndarray, " t+1"], Int64[np.ndarray, " n"]]:
    """Offsets of the chosen groups, packed one after another, and the indices of their members."""
    lengths = np.diff(offsets)[groups]
    packed = row_offsets(lengths)
    members = np.arange(packed[-1]) + np.repeat(offsets[groups] - packed[:-1], lengths)
    return packed, members


def take_members(
    values: Shaped[np.ndarray, "m ..."], offsets: Int64[np.ndarray, " g1"], groups: Int64[np.ndarray, " t"]
) -> tuple[Int64[np.ndarray, " t+1"], Shaped[np.ndarray, "n ..."]]:
    """The same with the members themselves, copied in portions."""
    packed = row_offsets(np.diff(offsets)[groups])
    taken = np.empty((int(packed[-1]), *values.shape[1:]), values.dtype)
    for start in range(0, len(groups), PORTION):
        chosen = groups[start : start + PORTION]
        _, members = take_groups(offsets, chosen)
        # All are there: with the mode "raise" NumPy would write into a copy first.
        np.take(values, members, axis=0, out=taken[packed[start] : packed[start + len(chosen)]], mode="clip")
    return packed, taken
