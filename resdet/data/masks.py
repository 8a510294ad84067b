"""Ground-truth masks in the frame of their boxes: a fixed number of cells, whatever the size of object and image."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Float64, Int64, Integer, Num, UInt8
from pycocotools import mask as pycocotools_mask

from resdet.data.segmentation import Segmentations, decompress

coco_mask: Any = pycocotools_mask  # its annotations refuse polygons


def box_frame_masks(
    segmentations: Segmentations,
    rows: Int64[np.ndarray, " n"],
    frames: Float[np.ndarray, "n 4"],
    *,
    height: int,
    width: int,
    resolution: int,
) -> UInt8[np.ndarray, "n B B"]:
    """How much of each cell of its frame a mask covers, 0 .. 255; zeros where an annotation has no mask.

    `rows` choose the annotations, all of one image of `height` x `width` pixels, and `frames` are (x1, y1, x2, y2) in
    its pixels; x1 > x2 asks for the mirrored mask. B is `resolution`.
    """
    masks = np.zeros((len(rows), resolution, resolution), np.uint8)
    for mask, row, frame in zip(masks, rows.tolist(), frames.astype(np.float64), strict=True):
        pixels, corner = mask_pixels(segmentations, row, height, width)
        if pixels.size:
            mask[:] = _coverage(pixels, frame - np.tile(corner, 2), resolution)
    return masks


def mask_pixels(
    segmentations: Segmentations, row: int, height: int, width: int
) -> tuple[UInt8[np.ndarray, "h w"], Int64[np.ndarray, "2"]]:
    """The window that holds an annotation's mask, 0 or 1 in each pixel exactly as COCO's evaluation has them, and the
    window's corner (x, y) in the image; an empty window where there is no mask."""
    runs = segmentations.run_lengths(row)
    if len(runs):
        return run_pixels(runs, height)
    polygons = segmentations.polygons(row)
    if not polygons:
        return np.zeros((0, 0), np.uint8), np.zeros(2, np.int64)
    vertices = np.concatenate(polygons)
    low = np.maximum(np.floor(vertices.min(0)) - 1, 0)  # the rasteriser rounds outlines to fifths of a pixel
    high = np.minimum(np.ceil(vertices.max(0)) + 1, (width, height))
    across, down = (high - low).astype(np.int64).tolist()
    moved = [(polygon - low).ravel().tolist() for polygon in polygons]
    drawn = decompress(coco_mask.merge(coco_mask.frPyObjects(moved, down, across))["counts"].decode())
    assert drawn is not None
    pixels, corner = run_pixels(drawn, down)
    return pixels, corner + low.astype(np.int64)


def run_pixels(runs: Integer[np.ndarray, " n"], height: int) -> tuple[UInt8[np.ndarray, "h w"], Int64[np.ndarray, "2"]]:
    """The columns that a run-length encoding of an image of so many rows reaches, and their corner (x, y)."""
    ends = np.cumsum(runs, dtype=np.int64)
    starts, stops = ends[:-1:2], ends[1::2]  # of the foreground
    if not len(starts):
        return np.zeros((0, 0), np.uint8), np.zeros(2, np.int64)
    first, last = int(starts[0]) // height, -(-int(stops[-1]) // height)
    steps = np.zeros((last - first) * height + 1, np.int8)
    np.add.at(steps, starts - first * height, 1)  # runs of length 0 meet at one pixel
    np.add.at(steps, stops - first * height, -1)
    columns = np.cumsum(steps[:-1], dtype=np.int8).view(np.uint8).reshape(last - first, height)
    return columns.T, np.array([first, 0])


def _coverage(
    pixels: UInt8[np.ndarray, "h w"], frame: Float64[np.ndarray, "4"], resolution: int
) -> UInt8[np.ndarray, "B B"]:
    """The exact share of each cell that set pixels cover: between pixel corners the integral image is bilinear."""
    x1, y1, x2, y2 = frame.tolist()
    integral = cv2.integral(np.ascontiguousarray(pixels))
    table = _between(integral, np.linspace(y1, y2, resolution + 1))
    table = _between(table.T, np.linspace(x1, x2, resolution + 1)).T
    covered = np.diff(np.diff(table, axis=0), axis=1)
    cell = (x2 - x1) * (y2 - y1) / resolution**2
    return np.rint(np.clip(covered * (255 / cell), 0, 255)).astype(np.uint8)


def _between(table: Num[np.ndarray, "h w"], at: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, "n w"]:
    """Rows of a table at fractional positions; beyond its ends its first and last row."""
    at = np.clip(at, 0, len(table) - 1)
    above = np.minimum(at.astype(np.int64), len(table) - 2)
    share = (at - above)[:, None]
    return table[above] * (1 - share) + table[above + 1] * share
