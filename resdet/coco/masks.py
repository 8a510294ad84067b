"""Masks for scoring: every run-length encoding is proven sound before compiled code reads it.

pycocotools' C code reads past its buffers, hangs or dies on encodings and polygons that are not sound.
Format: run lengths in column-major order, zeros first; written as an LEB128-like string (cocoapi, maskApi.c).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Int64
from pycocotools import mask as pycocotools_mask

from resdet.errors import UserError

coco_mask: Any = pycocotools_mask  # its annotations refuse polygons
MASKS_AT_ONCE = 10_000  # bounds the memory of the check


class Rle(TypedDict):
    size: list[int]  # height, width
    counts: bytes


def ground_truth_mask(segmentation: Any, height: int, width: int, where: str) -> Rle | None:
    """A polygon list or a run-length encoding of either form as a checked encoding; None where nothing can be drawn.

    `where` names the annotation in messages. Polygons of fewer than three points enclose nothing and are left out.
    """
    if isinstance(segmentation, dict):
        return checked_masks([segmentation], [(height, width)], lambda _: where)[0]
    if not isinstance(segmentation, list):
        raise UserError(f"{where}: segmentation is neither a list of polygons nor a run-length encoding")
    polygons = [_polygon(part, height, width, where) for part in segmentation]
    drawable = [polygon for polygon in polygons if len(polygon) >= 6]
    return coco_mask.merge(coco_mask.frPyObjects(drawable, height, width)) if drawable else None


def _polygon(part: Any, height: int, width: int, where: str) -> list[float]:
    if not isinstance(part, list) or not all(isinstance(v, int | float) for v in part) or len(part) % 2:
        raise UserError(f"{where}: a polygon must be a flat list of x, y, x, y, ... numbers, not {str(part)[:60]}")
    polygon = np.array(part, dtype=np.float64).reshape(-1, 2)
    reach = np.array([width, height])
    # One image size beyond the border is sloppy; more is broken, and costs the rasteriser memory without bound.
    if not ((polygon >= -reach) & (polygon <= 2 * reach)).all():
        raise UserError(
            f"{where}: a polygon leaves the image of {height}x{width} (height x width) by more than its size"
        )
    return polygon.ravel().tolist()


def checked_masks(
    segmentations: Sequence[Any], sizes: Sequence[tuple[int, int]], where: Callable[[int], str]
) -> list[Rle]:
    """Run-length encodings in pycocotools' form, each sound and of its image's (height, width)."""
    masks = [
        Rle(size=[height, width], counts=_counts(segmentation, height, width, where, index))
        for index, (segmentation, (height, width)) in enumerate(zip(segmentations, sizes, strict=True))
    ]
    for start in range(0, len(masks), MASKS_AT_ONCE):
        _check_runs(masks[start : start + MASKS_AT_ONCE], partial(_shifted, where, start))
    return masks


def mask_areas(masks: Sequence[Rle]) -> Int64[np.ndarray, " n"]:
    """Pixels inside each checked mask."""
    areas = np.zeros(len(masks), dtype=np.int64)
    for start in range(0, len(masks), MASKS_AT_ONCE):
        part = slice(start, start + MASKS_AT_ONCE)
        runs, owner, position = _runs(masks[part], partial(_shifted, "mask {}".format, start))
        inside = position % 2 == 1
        areas[part] = np.bincount(owner[inside], weights=runs[inside], minlength=len(masks[part]))
    return areas


def _shifted(where: Callable[[int], str], start: int, index: int) -> str:
    return where(start + index)


def _counts(segmentation: Any, height: int, width: int, where: Callable[[int], str], index: int) -> bytes:
    if not isinstance(segmentation, dict) or "size" not in segmentation or "counts" not in segmentation:
        raise UserError(f"{where(index)}: segmentation is not a run-length encoding with size and counts")
    size, counts = segmentation["size"], segmentation["counts"]
    if size not in ([height, width], (height, width)):
        raise UserError(
            f"{where(index)}: the mask's size is {size} but its image has (height, width) {[height, width]}; "
            "paste masks into the original image before writing them"
        )
    if isinstance(counts, bytes):
        return counts
    if isinstance(counts, str) and counts.isascii():
        return counts.encode()
    if isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts):
        if sum(counts) != height * width:
            raise UserError(f"{where(index)}: the mask's runs add up to {sum(counts)}, not to {height}x{width} pixels")
        return _packed(counts, height, width)
    raise UserError(
        f"{where(index)}: the mask's counts {str(counts)[:40]!r} are neither run lengths nor their string form"
    )


def _packed(runs: list[int], height: int, width: int) -> bytes:
    return coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)["counts"]


def _without_empty_runs(runs: list[int]) -> list[int]:
    """The same pixels with every run but the first longer than 0."""
    merged = runs[:1]
    for position, run in enumerate(runs[1:], start=1):
        if position % 2 != len(merged) % 2:  # what came between was empty
            merged[-1] += run
        elif run:
            merged.append(run)
    return merged


def _check_runs(masks: list[Rle], where: Callable[[int], str]) -> None:
    runs, owner, position = _runs(masks, where)
    _refuse_mask(runs < 0, owner, masks, where, "a run length is negative")
    pixels = np.array([height * width for height, width in (mask["size"] for mask in masks)], dtype=np.int64)
    totals = np.zeros(len(masks), dtype=np.int64)
    np.add.at(totals, owner, runs)
    _refuse_mask(totals != pixels, np.arange(len(masks)), masks, where, "the runs do not add up to its pixels")
    # An empty run inside makes pycocotools' union stop early: write such masks anew.
    for index in np.unique(owner[(runs == 0) & (position > 0)]).tolist():
        masks[index]["counts"] = _packed(_without_empty_runs(runs[owner == index].tolist()), *masks[index]["size"])


def _runs(
    masks: Sequence[Rle], where: Callable[[int], str]
) -> tuple[Int64[np.ndarray, " r"], Int64[np.ndarray, " r"], Int64[np.ndarray, " r"]]:
    """All run lengths of all masks, the mask each belongs to, and its position there (rleFrString, vectorised)."""
    lengths = np.array([len(mask["counts"]) for mask in masks], dtype=np.int64)
    _refuse_mask(lengths == 0, np.arange(len(masks)), masks, where, "it is empty")
    characters = np.frombuffer(b"".join(mask["counts"] for mask in masks), dtype=np.uint8).astype(np.int64) - 48
    character_owner = np.repeat(np.arange(len(masks)), lengths)
    _refuse_mask((characters < 0) | (characters > 63), character_owner, masks, where, "a character is out of range")
    last = (characters & 32) == 0  # of a run: five bits a character, the sixth says that more follow
    _refuse_mask(~last[np.cumsum(lengths) - 1], np.arange(len(masks)), masks, where, "it is cut off")
    ends = np.flatnonzero(last)
    starts = np.concatenate([np.zeros(min(1, len(ends)), dtype=np.int64), ends[:-1] + 1])
    owner = character_owner[starts]
    digits = ends - starts + 1
    _refuse_mask(digits > 7, owner, masks, where, "a run is longer than any image")
    shift = 5 * (np.arange(len(characters)) - np.repeat(starts, digits))
    runs = np.add.reduceat((characters & 31) << shift, starts) if len(starts) else np.zeros(0, dtype=np.int64)
    runs -= np.where(characters[ends] & 16, 1 << (5 * digits), 0)  # sign extension
    position = np.arange(len(runs)) - np.searchsorted(owner, owner)
    return _undo_differences(runs, owner, position), owner, position


def _undo_differences(
    runs: Int64[np.ndarray, " r"], owner: Int64[np.ndarray, " r"], position: Int64[np.ndarray, " r"]
) -> Int64[np.ndarray, " r"]:
    """From the fourth on, a run is stored as its difference to the one two before."""
    chain_id = owner * 3 + np.where(position == 0, 0, 1 + position % 2)
    order = np.argsort(chain_id, kind="stable")
    sums = np.cumsum(runs[order])
    first = np.searchsorted(chain_id[order], chain_id[order])
    total = np.empty_like(runs)
    total[order] = sums - (sums - runs[order])[first]
    return total


def _refuse_mask(
    bad: np.ndarray, owner: Int64[np.ndarray, " r"], masks: Sequence[Rle], where: Callable[[int], str], why: str
) -> None:
    if bad.any():
        index = int(owner[np.argmax(bad)])
        height, width = masks[index]["size"]
        raise UserError(f"{where(index)}: the mask is no run-length encoding of {height}x{width} pixels: {why}")
