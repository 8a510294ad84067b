"""Finds masks that disagree with their boxes: without any pixel, or without a pixel inside the box."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int64

from resdet.coco import run_lengths
from resdet.coco.run_lengths import Runs
from resdet.coco.segmentation import Segmentations

EMPTY = "mask without a pixel"
OUTSIDE = "mask outside its box"
TOLERANCE = 0.25  # pixels by which a polygon may exceed its box; vertices are rounded to fifths


def disagreeing(
    masks: Segmentations,
    boxes: Float64[np.ndarray, "M 4"],
    heights: Int64[np.ndarray, " M"],
    widths: Int64[np.ndarray, " M"],
) -> dict[str, Int64[np.ndarray, " _"]]:
    """By reason, the annotations whose mask has no pixel in its box.

    `boxes` are (x1, y1, x2, y2) inside their images, of `heights` x `widths` pixels; a pixel is in a box that covers
    any part of it. Polygons that are certainly larger than a pixel and inside their box are not rasterized for this
    check.
    """
    drawn = np.flatnonzero((np.diff(masks.polygon_rows) > 0) & ~_surely_inside(masks, boxes))
    polygons = [masks.encoded(row, int(heights[row]), int(widths[row])) for row in drawn.tolist()]
    encoded = np.flatnonzero(np.diff(masks.run_rows) > 0)
    runs_of_polygons, _ = run_lengths.decode([mask["counts"] for mask in polygons])
    runs_of_file = Runs(masks.runs.astype(np.int64), masks.run_rows[np.append(encoded, len(masks))])
    empty: list[Int64[np.ndarray, " _"]] = []
    outside: list[Int64[np.ndarray, " _"]] = []
    for rows, found in ((drawn, runs_of_polygons), (encoded, runs_of_file)):
        areas = found.areas()
        inside = _meets(found, boxes[rows], heights[rows])
        empty.append(rows[areas == 0])
        outside.append(rows[(areas > 0) & ~inside])
    verdicts = {EMPTY: np.sort(np.concatenate(empty)), OUTSIDE: np.sort(np.concatenate(outside))}
    return {reason: rows for reason, rows in verdicts.items() if len(rows)}


def _surely_inside(masks: Segmentations, boxes: Float64[np.ndarray, "M 4"]) -> Bool[np.ndarray, " M"]:
    """Annotations whose polygons all lie in the box, and of which one has an area larger than its perimeter (in
    pixels).

    A simple polygon of this kind contains a point at a distance of at least one pixel from its outline. This distance
    is more than half a pixel's diagonal plus the tolerance, so both the polygon and the box contain a pixel there.
    """
    counts = np.diff(masks.vertex_rows)
    sure = np.zeros(len(masks), bool)
    if not len(counts):
        return sure
    starts, ends = masks.vertex_rows[:-1], masks.vertex_rows[1:]
    points = masks.fifths.astype(np.float64) / 5
    following = np.arange(1, len(points) + 1)
    following[ends - 1] = starts
    x, y = points.T
    cross = x * y[following] - x[following] * y
    area = np.abs(np.add.reduceat(cross, starts)) / 2
    perimeter = np.add.reduceat(np.hypot(x[following] - x, y[following] - y), starts)
    owners = np.repeat(np.arange(len(masks)), np.diff(masks.polygon_rows))
    low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
    fits = np.all(low >= boxes[owners, :2] - TOLERANCE, axis=1) & np.all(high <= boxes[owners, 2:] + TOLERANCE, axis=1)
    misfits = np.bincount(owners[~fits], minlength=len(masks))
    large = np.bincount(owners[area > perimeter], minlength=len(masks))
    return (misfits == 0) & (large > 0)


def _meets(runs: Runs, boxes: Float64[np.ndarray, "n 4"], heights: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Whether a mask has a pixel in its box: in the first or last column of one of its runs, or in a column between."""
    meets = np.zeros(len(runs), bool)
    ends = np.cumsum(runs.numbers)
    owners, places = runs.owners(), runs.places()
    chosen = (places % 2 == 1) & (runs.numbers > 0)
    owner = owners[chosen]
    before = np.concatenate((np.zeros(1, np.int64), ends))[runs.offsets[:-1]]  # pixels of the masks before each
    stop = ends[chosen] - before[owner]
    start = stop - runs.numbers[chosen]
    height, last = heights[owner], stop - 1
    left, top = np.floor(boxes[owner, 0]), np.floor(boxes[owner, 1])
    right, bottom = np.ceil(boxes[owner, 2]), np.ceil(boxes[owner, 3])
    first_column, last_column = start // height, last // height
    single = first_column == last_column
    first_bottom = np.where(single, last % height + 1, height)
    last_top = np.where(single, start % height, 0)
    hit = (first_column >= left) & (first_column < right) & (start % height < bottom) & (first_bottom > top)
    hit |= (last_column >= left) & (last_column < right) & (last_top < bottom) & (last % height + 1 > top)
    hit |= np.maximum(first_column + 1, left) < np.minimum(last_column, right)
    meets[owner[hit]] = True
    return meets
