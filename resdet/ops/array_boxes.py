"""The overlap of boxes in numpy arrays (x, y, width, height), the form of annotations and results."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64


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
