"""Predicted masks, from the frames of their boxes into the image: as pixels, or at once as COCO's run lengths.

Only the window of a box is ever computed: bilinear interpolation is separable, so it is two small matrix products.
Windows are held column by column, as run lengths go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

THRESHOLD = 0.5


class RunLengths(TypedDict):
    """A mask in COCO's compressed form."""

    size: list[int]  # height, width
    counts: bytes


def paste_masks(
    masks: Float[np.ndarray, "n M M"], boxes: Float[np.ndarray, "n 4"], height: int, width: int
) -> Bool[np.ndarray, "n H W"]:
    """The pixels of an image of `height` x `width` where a mask, stretched over its box, is at least one half.

    `boxes` are (x1, y1, x2, y2) in pixels of the image, with fractions, and may reach beyond it. A mask is sampled at
    pixel centres and is 0 around its cells, as in Detectron2's `paste_masks_in_image`.
    """
    pasted = np.zeros((len(masks), height, width), bool)
    for image, mask, box in zip(pasted, masks, boxes, strict=True):
        window, x, y = _window(mask, box, height, width)
        image[y : y + window.shape[1], x : x + window.shape[0]] = window.T
    return pasted


def encode_masks(
    masks: Float[np.ndarray, "n M M"], boxes: Float[np.ndarray, "n 4"], height: int, width: int
) -> list[RunLengths]:
    """What pycocotools' `encode` makes of `paste_masks`, without the image in between."""
    runs = [_runs(*_window(mask, box, height, width), height, width) for mask, box in zip(masks, boxes, strict=True)]
    return [RunLengths(size=[height, width], counts=counts) for counts in compress(runs)]


def _window(
    mask: Float[np.ndarray, "M M"], box: Float[np.ndarray, "4"], height: int, width: int
) -> tuple[Bool[np.ndarray, "w h"], int, int]:
    """The pixels with their centres in the box, column by column, and the first one's x and y; none for an empty box.

    Beyond the box the mask fades to less than one half.
    """
    x1, y1, x2, y2 = box.tolist()
    if not (x2 > x1 and y2 > y1):
        return np.zeros((0, 0), bool), 0, 0
    x, columns = _interpolation(x1, x2, width, mask.shape[1])
    y, rows = _interpolation(y1, y2, height, mask.shape[0])
    return columns @ mask.T.astype(np.float32) @ rows.T >= THRESHOLD, x, y


def _interpolation(low: float, high: float, length: int, cells: int) -> tuple[int, Float32[np.ndarray, "pixels cells"]]:
    """The first of the pixels with their centres in [low, high], and the weight of each cell in each pixel."""
    first, last = max(0, int(np.ceil(low - 0.5))), min(length - 1, int(np.floor(high - 0.5)))
    pixels = np.arange(first, max(first, last + 1))
    at = (pixels + 0.5 - low) * (cells / (high - low)) - 0.5  # in cells, from the centre of the first
    weights = 1 - np.abs(at[:, None] - np.arange(cells))
    return first, np.maximum(weights, 0, dtype=np.float32)


def _runs(window: Bool[np.ndarray, "w h"], x: int, y: int, height: int, width: int) -> Int64[np.ndarray, " n"]:
    """Run lengths over the columns of the image, background first."""
    columns, rows = window.shape
    walled = np.zeros(columns * (rows + 1) + 1, bool)  # background before the first column and after each
    walled[1:].reshape(columns, rows + 1)[:, :rows] = window
    column, row = np.divmod(np.flatnonzero(walled[1:] != walled[:-1]), rows + 1)
    changes = (x + column) * height + y + row  # foreground begins, ends, begins, ...
    if rows == height:  # it may go on from one column into the next
        joined = np.flatnonzero(changes[1:-1:2] == changes[2::2]) * 2
        changes = np.delete(changes, np.concatenate((joined + 1, joined + 2)))
    end = height * width
    ends = changes if len(changes) and changes[-1] == end else np.append(changes, end)
    return np.diff(ends, prepend=0)


def compress(runs: Sequence[Int64[np.ndarray, " _"]]) -> list[bytes]:
    """Run lengths of many masks as COCO's strings, character by character of all numbers at once.

    Five bits a character, least significant first, bit 6 says that more follow; from the fourth number of a mask on,
    each is stored as the difference to the one two before (pycocotools' `rleToString`).
    """
    if not runs:
        return []
    lengths = np.array([len(counts) for counts in runs])
    numbers = np.concatenate(runs)
    position = np.arange(len(numbers)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    later = np.flatnonzero(position > 2)
    rest = numbers.copy()
    rest[later] -= numbers[later - 2]

    characters = np.zeros((len(rest), 13), np.uint8)  # 64 bits; 0 where a number has ended
    left = np.arange(len(rest))
    for digits in characters.T:
        bits = rest & 31
        rest = rest >> 5
        more = rest != -(bits >> 4)  # what is left is not just the sign
        digits[left] = 48 + bits + 32 * more
        left, rest = left[more], rest[more]
        if not len(left):
            break
    written = characters != 0
    text = characters[written].tobytes()
    ends = np.cumsum(np.add.reduceat(written.sum(1), np.cumsum(lengths) - lengths)).tolist()
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
