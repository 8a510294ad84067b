"""Ground-truth masks in the frames of their boxes: a fixed number of cells for every size of object and image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Float64, Int64, Integer, UInt8

from resdet.coco.run_lengths import decode_one
from resdet.coco.segmentation import Segmentations, coco_mask


@dataclass(frozen=True)
class MaskWindow:
    """The part of an image that contains a mask (0 or 1 for each pixel), and the position of its corner in
    the image.
    """

    pixels: UInt8[np.ndarray, "h w"]
    x: int
    y: int


EMPTY = MaskWindow(np.zeros((0, 0), np.uint8), 0, 0)


def box_frame_masks(
    segmentations: Segmentations,
    rows: Int64[np.ndarray, " n"],
    frames: Float[np.ndarray, "n 4"],
    *,
    height: int,
    width: int,
    resolution: int,
) -> UInt8[np.ndarray, "n B B"]:
    """The coverage of each cell of its frame by a mask, 0 .. 255; zeros for an annotation without a mask.

    `rows` choose the annotations, all of one image of `height` x `width` pixels, and `frames` are (x1, y1, x2, y2) in
    its pixels; x1 > x2 gives the mirrored mask. B is `resolution`.
    """
    masks = np.zeros((len(rows), resolution, resolution), np.uint8)
    for mask, row, frame in zip(masks, rows.tolist(), frames.astype(np.float64), strict=True):
        window = mask_window(segmentations, row, height, width)
        if window.pixels.size:
            mask[:] = window_coverage(window, frame, (resolution, resolution))
    return masks


def window_coverage(
    window: MaskWindow, frame: Float64[np.ndarray, "4"], cells: tuple[int, int]
) -> UInt8[np.ndarray, "h w"]:
    """The coverage of each cell of a frame, 0 .. 255; `cells` is their number (down, across). The window must not be
    empty.
    """
    return _coverage(window.pixels, frame - (window.x, window.y, window.x, window.y), cells)


def mask_window(segmentations: Segmentations, row: int, height: int, width: int) -> MaskWindow:
    """An annotation's mask, pixel by pixel as in COCO's evaluation; an empty window if there is no mask."""
    runs = segmentations.run_lengths(row)
    if len(runs):
        return run_window(runs, height)
    polygons = segmentations.polygons(row)
    return polygon_window(polygons, height, width) if polygons else EMPTY


def polygon_window(polygons: Sequence[Float64[np.ndarray, "_ 2"]], height: int, width: int) -> MaskWindow:
    """Polygons with vertices (x, y), pixel by pixel as in COCO's evaluation, cut at an image of this size."""
    vertices = np.concatenate(polygons)
    (x1, y1), (x2, y2) = vertices.min(0).tolist(), vertices.max(0).tolist()
    left, top = max(math.floor(x1) - 1, 0), max(math.floor(y1) - 1, 0)  # the rasterizer rounds outlines to fifths
    across, down = min(math.ceil(x2) + 1, width) - left, min(math.ceil(y2) + 1, height) - top
    if across <= 0 or down <= 0:
        return EMPTY
    drawn = coco_mask.frPyObjects([(polygon - (left, top)).ravel() for polygon in polygons], down, across)
    window = encoded_window(drawn[0] if len(drawn) == 1 else coco_mask.merge(drawn))
    return MaskWindow(window.pixels, left + window.x, top + window.y)


def encoded_window(mask: Mapping[str, Any]) -> MaskWindow:
    """A valid run-length encoding in COCO's compressed form, {size, counts}, as pixels."""
    counts = mask["counts"]
    return run_window(decode_one(counts if isinstance(counts, bytes) else counts.encode()), mask["size"][0])


def run_window(runs: Integer[np.ndarray, " n"], height: int) -> MaskWindow:
    """Run lengths over the columns of an image with this number of rows, background first, as pixels."""
    ends = np.cumsum(runs, dtype=np.int64)
    objects = len(ends) // 2  # runs of foreground
    if not objects:
        return EMPTY
    first, last = int(ends[0]) // height, -(-int(ends[2 * objects - 1]) // height)  # columns
    lengths = np.append(runs[: 2 * objects], last * height - ends[2 * objects - 1]).astype(np.int64)
    lengths[0] = ends[0] - first * height
    values = (np.arange(len(lengths)) & 1).astype(np.uint8)
    columns = np.repeat(values, lengths).reshape(last - first, height)
    y, x, rows, across = cv2.boundingRect(columns)
    if not rows:
        return EMPTY
    return MaskWindow(np.ascontiguousarray(columns[x : x + across, y : y + rows].T), first + x, y)


def _coverage(
    pixels: UInt8[np.ndarray, "h w"], frame: Float64[np.ndarray, "4"], cells: tuple[int, int]
) -> UInt8[np.ndarray, "rows columns"]:
    """The exact fraction of each cell that set pixels cover: the integral image is bilinear between pixel corners."""
    x1, y1, x2, y2 = frame.tolist()
    integral = cv2.integral(pixels)
    above, share = _between(y1, y2, cells[0], len(integral))
    table = integral[above] * (1 - share[:, None]) + integral[above + 1] * share[:, None]
    left, share = _between(x1, x2, cells[1], integral.shape[1])
    table = table.take(left, axis=1) * (1 - share) + table.take(left + 1, axis=1) * share
    covered = table[1:] - table[:-1]
    covered = covered[:, 1:] - covered[:, :-1]
    cell = (x2 - x1) * (y2 - y1) / (cells[0] * cells[1])
    return np.rint(np.clip(covered * (255 / cell), 0, 255)).astype(np.uint8)


def _between(
    first: float, last: float, cells: int, corners: int
) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """The edges of so many cells from `first` to `last`, as the pixel corner before each and the share of the next one;
    an edge outside of the `corners` is moved to the first or last.
    """
    edges = np.arange(cells + 1) * ((last - first) / cells) + first
    edges[-1] = last
    edges = np.minimum(np.maximum(edges, 0), corners - 1)
    before = np.minimum(edges.astype(np.int64), corners - 2)
    return before, edges - before
