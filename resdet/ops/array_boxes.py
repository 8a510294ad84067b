"""The overlap of boxes in numpy arrays: with one another (x, y, width, height), and of their sizes with anchors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float64


def paired_iou(
    first: Float64[np.ndarray, "n 4"],
    second: Float64[np.ndarray, "n 4"],
    crowd: Bool[np.ndarray, " n"] | None = None,
) -> Float64[np.ndarray, " n"]:
    """Intersection over union of each box of `first` with the box of `second` at the same position; 0 without overlap.

    If the second box is a `crowd` region, the result is the fraction of the first box that lies in it (cocoapi).
    """
    low = np.maximum(first[:, :2], second[:, :2])
    sides = np.maximum(np.minimum(first[:, :2] + first[:, 2:], second[:, :2] + second[:, 2:]) - low, 0)
    overlap = sides[:, 0] * sides[:, 1]
    area = first[:, 2] * first[:, 3]
    union = area + second[:, 2] * second[:, 3] - overlap
    if crowd is not None:
        union = np.where(crowd, area, union)
    return np.divide(overlap, union, out=np.zeros(len(first)), where=overlap > 0)


def best_anchor_iou(
    widths: Float[np.ndarray, " n"], heights: Float[np.ndarray, " n"], sizes: Sequence[float], ratios: Sequence[float]
) -> Float64[np.ndarray, " n"]:
    """Intersection over union of each box with the best anchor of the same centre; boxes have a positive area.

    An anchor of size s and ratio r has the area s * s, and r is its height over its width.
    """
    size, root = np.repeat(np.array(sizes, np.float64), len(ratios)), np.sqrt(np.tile(ratios, len(sizes)))
    across = np.minimum(widths[:, None], size / root)
    down = np.minimum(heights[:, None], size * root)
    return (across * down / ((widths * heights)[:, None] + size**2 - across * down)).max(axis=1)
