"""Checks of whole columns; an error names the first entry that fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from resdet.errors import UserError

LARGEST = 1e7  # pixels: a larger number is an error, and its square would remove the precision of the other boxes


def find_ids(
    ids: Int64[np.ndarray, " n"], known: Int64[np.ndarray, " k"]
) -> tuple[Int64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """The position of each id in `known`, which is in any order and not empty, and whether it is there."""
    order = np.argsort(known, kind="stable")
    nearest = order[np.searchsorted(known, ids, sorter=order).clip(max=len(known) - 1)]
    return nearest, known[nearest] == ids


def int_array(values: Sequence[Any], source: str) -> Int64[np.ndarray, "..."]:
    try:
        return np.array(values, dtype=np.int64)
    except OverflowError:
        raise UserError(f"{source}: an id or size lies outside 64-bit integers; give it a smaller one") from None


def box_array(boxes: Sequence[Sequence[float]], where: Callable[[int], str]) -> Float64[np.ndarray, "n 4"]:
    """Rows (x, y, width, height), finite and with no negative size; boxes of size zero are accepted, as
    in pycocotools.
    """
    lengths = np.fromiter(map(len, boxes), dtype=np.int64, count=len(boxes))
    if (lengths != 4).any():
        index = int(np.argmax(lengths != 4))
        raise UserError(
            f"{where(index)}: bbox {boxes[index]} has {lengths[index]} numbers; expected [x, y, width, height]"
        )
    array = np.fromiter(chain.from_iterable(boxes), dtype=np.float64, count=4 * len(boxes)).reshape(-1, 4)
    check_boxes(array, where)
    return array


def check_boxes(boxes: Float64[np.ndarray, "n 4"], where: Callable[[int], str]) -> None:
    finite = np.all(np.abs(boxes) <= LARGEST, axis=1)
    refuse_first(np.logical_not(finite), boxes, where, "bbox", "finite numbers of pixels")
    negative = np.minimum(boxes[:, 2], boxes[:, 3]) < 0
    refuse_first(negative, boxes, where, "bbox", "[x, y, width, height] of no negative size")


def refuse_first(
    bad: Bool[np.ndarray, " n"], values: np.ndarray, where: Callable[[int], str], field: str, expected: str
) -> None:
    """Raises UserError for the first bad entry, with the number of bad entries."""
    if not bad.any():
        return
    index = int(np.argmax(bad))
    more = f" ({int(bad.sum())} such entries)" if bad.sum() > 1 else ""
    raise UserError(f"{where(index)}: {field} is {values[index].tolist()}; expected {expected}{more}")
