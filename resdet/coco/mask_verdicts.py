"""The verdicts on masks: which cannot be used for their image, and which disagree with their boxes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from resdet.coco import run_lengths
from resdet.coco.given_masks import GivenMasks, to_fifths
from resdet.coco.groups import row_offsets, take_members
from resdet.coco.run_lengths import Runs, without_empty_runs
from resdet.coco.segmentation import Segmentations

UNSIZED = "mask of an image whose size is not given"
FAR = "polygon far outside its image"
CUT = "polygon cut at its image's border"
EMPTY = "mask without a pixel"
OUTSIDE = "mask outside its box"
TOLERANCE = 0.25  # pixels by which a polygon may exceed its box; vertices are rounded to fifths
OVERHANG = 1  # pixels: COCO's own polygons often touch the border


@dataclass(frozen=True)
class Images:
    """Of each of M annotations the size of its image; 0 where it is not given, or where there is no such image."""

    heights: Int64[np.ndarray, " M"]
    widths: Int64[np.ndarray, " M"]


@dataclass(frozen=True)
class MaskVerdicts:
    """The masks of M annotations, and those of them that cannot be used: by reason, and all in `dropped`. `clipped` are
    the annotations whose mask is cut at the border of its image.
    """

    masks: Segmentations
    skipped: dict[str, Int64[np.ndarray, " _"]]
    clipped: Int64[np.ndarray, " _"]
    dropped: Bool[np.ndarray, " M"]


def mask_verdicts(
    given: GivenMasks,
    boxes: Float64[np.ndarray, "M 4"],
    images: Images,
    kept: Bool[np.ndarray, " M"],
    refuse: Callable[[int, str], None],
) -> MaskVerdicts:
    """`boxes` are (x1, y1, x2, y2) inside their images; `refuse(m, reason)` is called for a mask of a `kept` annotation
    that is certainly wrong (run lengths that do not fill the image, numbers beyond float32), and raises.
    """
    sized = images.heights > 0
    reasons = dict.fromkeys(np.flatnonzero(given.present() & ~sized).tolist(), UNSIZED)
    certain = {row: fault.reason for row, fault in given.faults.items() if sized[row] and fault.certain}
    certain |= _wrong_runs(given, images)
    for row, reason in sorted(certain.items()):
        if kept[row]:
            refuse(row, reason)
        reasons[row] = reason
    for row, fault in given.faults.items():
        _ = reasons.setdefault(row, fault.reason)
    owners = np.repeat(np.arange(len(given)), np.diff(given.polygon_rows))
    limits = np.stack((images.widths, images.heights), axis=1)[owners]
    low, high = given.bounds[:, :2], given.bounds[:, 2:]
    # Up to one image size beyond the border is accepted; more would cost the rasterizer memory.
    for row in np.unique(owners[np.any((low < -limits) | (high > 2 * limits), axis=1)]).tolist():
        _ = reasons.setdefault(row, FAR)
    dropped = np.zeros(len(given), bool)
    dropped[list(reasons)] = True
    cut = owners[np.any((low < -OVERHANG) | (high > limits + OVERHANG), axis=1)]
    skipped: dict[str, list[int]] = {}
    for row, reason in sorted(reasons.items()):
        skipped.setdefault(reason, []).append(row)
    masks = Segmentations(given.polygon_rows, given.vertex_rows, given.fifths, *_usable_runs(given, dropped))
    surely = _surely_inside(given, owners, boxes)
    disagree = disagreeing(masks, boxes, images, kept & ~dropped, surely)
    clipped = np.unique(cut[~dropped[cut]])
    dropped[np.concatenate([np.zeros(0, np.int64), *disagree.values()])] = True
    return MaskVerdicts(
        masks, {reason: np.array(rows, np.int64) for reason, rows in skipped.items()} | disagree, clipped, dropped
    )


def _wrong_runs(given: GivenMasks, images: Images) -> dict[int, str]:
    """The annotations whose run lengths are not those of their image, with the reason."""
    rows = np.flatnonzero(given.encoded & (images.heights > 0))
    sizes = np.stack((images.heights, images.widths), axis=1)[rows]
    offsets, numbers = take_members(given.runs, given.run_rows, rows)
    wrong = {
        int(rows[at]): f"counts are no run lengths that add up to {sizes[at, 0]} x {sizes[at, 1]} pixels"
        for at in Runs(numbers, offsets).faults(sizes.prod(axis=1))
    }
    for at in np.flatnonzero(np.any(given.sizes[rows] != sizes, axis=1)).tolist():
        wrong[int(rows[at])] = f"size {given.sizes[rows[at]].tolist()} is not the image's {sizes[at].tolist()}"
    return wrong


def _usable_runs(given: GivenMasks, dropped: Bool[np.ndarray, " M"]) -> tuple[Int64[np.ndarray, " M1"], np.ndarray]:
    """The run lengths without empty ones, as offsets and 32-bit numbers; none of the dropped masks."""
    counts = np.where(dropped, 0, np.diff(given.run_rows))
    runs = given.runs[np.repeat(~dropped, np.diff(given.run_rows))]
    packed = Runs(runs, row_offsets(counts))
    if len(uneven := packed.with_empty_runs()):
        each = {int(row): without_empty_runs(packed[row]) for row in uneven}
        parts = [each.get(row, packed[row]) for row in np.flatnonzero(counts).tolist()]
        counts[list(each)] = [len(part) for part in each.values()]
        runs = np.concatenate(parts)
    return row_offsets(counts), runs.astype(np.uint32)


def disagreeing(
    masks: Segmentations,
    boxes: Float64[np.ndarray, "M 4"],
    images: Images,
    checked: Bool[np.ndarray, " M"],
    surely: Bool[np.ndarray, " M"],
) -> dict[str, Int64[np.ndarray, " _"]]:
    """By reason, those of the `checked` annotations whose mask has no pixel in its box.

    `boxes` are (x1, y1, x2, y2) inside their images; a pixel is in a box that covers any part of it. Polygons that are
    certainly larger than a pixel and inside their box (`surely`) are not rasterized for this check.
    """
    heights, widths = images.heights, images.widths
    drawn = np.flatnonzero((np.diff(masks.polygon_rows) > 0) & checked & ~surely)
    polygons = [masks.encoded(row, int(heights[row]), int(widths[row])) for row in drawn.tolist()]
    encoded = np.flatnonzero((np.diff(masks.run_rows) > 0) & checked)
    runs_of_polygons, _ = run_lengths.decode([mask["counts"] for mask in polygons])
    offsets, numbers = take_members(masks.runs, masks.run_rows, encoded)
    runs_of_file = Runs(numbers.astype(np.int64), offsets)
    empty: list[Int64[np.ndarray, " _"]] = []
    outside: list[Int64[np.ndarray, " _"]] = []
    for rows, found in ((drawn, runs_of_polygons), (encoded, runs_of_file)):
        areas = found.areas()
        inside = _meets(found, boxes[rows], heights[rows])
        empty.append(rows[areas == 0])
        outside.append(rows[(areas > 0) & ~inside])
    verdicts = {EMPTY: np.sort(np.concatenate(empty)), OUTSIDE: np.sort(np.concatenate(outside))}
    return {reason: rows for reason, rows in verdicts.items() if len(rows)}


def _surely_inside(
    given: GivenMasks, owners: Int64[np.ndarray, " P"], boxes: Float64[np.ndarray, "M 4"]
) -> Bool[np.ndarray, " M"]:
    """Annotations whose polygons all lie in the box, and of which one has an area larger than its perimeter (in
    pixels). `owners` are the annotations of the polygons.

    A simple polygon of this kind contains a point at a distance of at least one pixel from its outline. This distance
    is more than half a pixel's diagonal plus the tolerance, so both the polygon and the box contain a pixel there.
    """
    drawn, own = to_fifths(given.bounds) / 5, boxes[owners]
    fits = np.all(drawn[:, :2] >= own[:, :2] - TOLERANCE, axis=1) & np.all(
        drawn[:, 2:] <= own[:, 2:] + TOLERANCE, axis=1
    )
    misfits = np.bincount(owners[~fits], minlength=len(given))
    large = np.bincount(owners[given.wide], minlength=len(given))
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
