"""Pastes predicted masks from the frames of their boxes into the image.

Only the window of a box is computed: bilinear interpolation is separable, so it is two small matrix products. Windows
are stored column by column, like run lengths (`resdet.coco.run_lengths.encode_masks`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Float32

THRESHOLD = 0.5


def paste_masks(
    masks: Float[np.ndarray, "n M M"], boxes: Float[np.ndarray, "n 4"], height: int, width: int
) -> Bool[np.ndarray, "n H W"]:
    """The pixels of an image of `height` x `width` at which a mask, stretched over its box, is at least one half.

    `boxes` are (x1, y1, x2, y2) in pixels of the image, with fractions, and may extend beyond it. A mask is sampled at
    pixel centres and is 0 around its cells, as in Detectron2's `paste_masks_in_image`.
    """
    pasted = np.zeros((len(masks), height, width), bool)
    for image, (window, x, y) in zip(pasted, paste_windows(masks, boxes, height, width), strict=True):
        image[y : y + window.shape[1], x : x + window.shape[0]] = window.T
    return pasted


def paste_windows(
    masks: Float[np.ndarray, "n M M"], boxes: Float[np.ndarray, "n 4"], height: int, width: int
) -> Iterator[tuple[Bool[np.ndarray, "w h"], int, int]]:
    """Each mask's pixels in the window of its box, column by column, and the x and y of the window's first pixel."""
    for mask, box in zip(masks, boxes, strict=True):
        yield _window(mask, box, height, width)


def _window(
    mask: Float[np.ndarray, "M M"], box: Float[np.ndarray, "4"], height: int, width: int
) -> tuple[Bool[np.ndarray, "w h"], int, int]:
    """The pixels with their centres in the box, column by column, and the first one's x and y; none for an empty box.

    Outside the box the interpolated mask is less than one half.
    """
    x1, y1, x2, y2 = box.tolist()
    if not (x2 > x1 and y2 > y1):
        return np.zeros((0, 0), bool), 0, 0
    x, columns = _interpolation(x1, x2, width, mask.shape[1])
    y, rows = _interpolation(y1, y2, height, mask.shape[0])
    return columns @ mask.T.astype(np.float32) @ rows.T >= THRESHOLD, x, y


def _interpolation(low: float, high: float, length: int, cells: int) -> tuple[int, Float32[np.ndarray, "pixels cells"]]:
    """The first of the pixels with their centres in [low, high], and the weight of each cell for each pixel."""
    first, last = max(0, int(np.ceil(low - 0.5))), min(length - 1, int(np.floor(high - 0.5)))
    pixels = np.arange(first, max(first, last + 1))
    at = (pixels + 0.5 - low) * (cells / (high - low)) - 0.5  # in cells, from the centre of the first
    weights = 1 - np.abs(at[:, None] - np.arange(cells))
    return first, np.maximum(weights, 0, dtype=np.float32)
