"""Where the tags of boxes stand: never over the box that they name, never over one another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

Number = float | int  # the shape checks of the tests do not accept a whole number as a float
Rect = tuple[Number, Number, Number, Number]  # x1, y1, x2, y2

TOUCH = 0.5  # the area in pixels that two rectangles may have in common by rounding


def places(
    boxes: Sequence[Rect], sizes: Sequence[tuple[Number, Number]], width: Number, height: Number
) -> list[Rect | None]:
    """A place for the tag of each box, whose boxes come best first; `sizes` are (height, width) of the tags.

    A tag stands above, below or beside its box and within the picture, at the place where it covers least of the other
    boxes; large boxes count little, because their content is seen all the same. None: wherever it stood, it would cover
    its own box, an earlier tag, or more than half of another box.
    """
    rects = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    areas = np.maximum(rects[:, 2:] - rects[:, :2], 0).prod(1)
    weights = 1 / np.sqrt(areas + 1)
    placed: list[Rect | None] = []
    taken = np.zeros((0, 4))
    for i, (tag_height, tag_width) in enumerate(sizes):
        spots = _around(rects[i], tag_height, tag_width, width)
        inside = (spots[:, :2] >= 0).all(1) & (spots[:, 2] <= width) & (spots[:, 3] <= height)
        common = _common(spots, rects)
        seen = common <= areas / 2 + TOUCH
        free = inside & seen.all(1) & (common[:, i] <= TOUCH) & (_common(spots, taken) <= TOUCH).all(1)
        if not free.any():
            placed.append(None)
            continue
        best = spots[np.flatnonzero(free)[np.argmin((common @ weights)[free].round(6))]]
        x1, y1, x2, y2 = best.tolist()
        placed.append((x1, y1, x2, y2))
        taken = np.concatenate([taken, best[None]])
    return placed


def _around(box: Float64[np.ndarray, "4"], height: Number, width: Number, most: Number) -> Float64[np.ndarray, "n 4"]:
    """The places to try, in the order of preference: above, below, to the right, to the left."""
    x1, y1, x2, y2 = box.tolist()
    left = min(max(x1, 0), max(most - width, 0))
    right = min(max(x2 - width, 0), max(most - width, 0))
    above, below = np.floor(y1) - height, np.ceil(y2)
    corners = [(left, above), (left, below), (right, above), (right, below)]
    for y in (y1, y2 - height):
        corners += [(np.ceil(x2), max(y, 0.0)), (np.floor(x1) - width, max(y, 0.0))]
    corner = np.round(np.array(corners, dtype=np.float64))
    return np.concatenate([corner, corner + np.array((width, height))], axis=1)


def _common(a: Float64[np.ndarray, "n 4"], b: Float64[np.ndarray, "m 4"]) -> Float64[np.ndarray, "n m"]:
    """The area that each rectangle of `a` has in common with each of `b`."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    return np.maximum(sides, 0).prod(-1)
