"""Large images in tiles: each tile is predicted as an image of its own, and what the seams cut is joined again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from resdet.coco.run_lengths import RunLengths, encode_pixels
from resdet.errors import UserError
from resdet.predict.prediction import Prediction

BORDER = 2.0  # pixels: a box that ends so near to a seam is cut by it
AGREEMENT = 0.5  # the least overlap, within the pixels that two tiles share, of two boxes of one object


@dataclass(frozen=True)
class Tiling:
    """Square tiles of `side` pixels, of which neighbours share the fraction `overlap` of their side at least."""

    side: int
    overlap: float = 0.2

    def __post_init__(self) -> None:
        """Raises UserError for values that make no tiles."""
        if self.side < 16:
            raise UserError(f"tile={self.side}: a tile has at least 16 pixels a side")
        if not 0 <= self.overlap <= 0.9:
            raise UserError(f"overlap={self.overlap:g}: must lie between 0 and 0.9, as a fraction of the tile's side")

    def windows(self, height: int, width: int) -> Int64[np.ndarray, "t 4"]:
        """The tiles of an image (x1, y1, x2, y2): all within it, at even distances, row by row."""
        across, down = self._starts(width), self._starts(height)
        corners = np.array([(x, y) for y in down for x in across], np.int64)
        sides = np.array([min(self.side, width), min(self.side, height)])
        return np.concatenate((corners, corners + sides), axis=1)

    def _starts(self, length: int) -> list[int]:
        last = length - self.side
        if last <= 0:
            return [0]
        step = max(1, int(self.side * (1 - self.overlap)))
        count = -(-last // step) + 1
        return np.linspace(0, last, count).round().astype(int).tolist()


def merged(parts: Sequence[Prediction], windows: Int64[np.ndarray, "t 4"], whole: Prediction) -> Prediction:
    """The prediction of a whole image from those of its tiles; `whole` has its size and source, and no objects.

    Two detections of one class in different tiles are one object if their boxes agree in the pixels that both tiles see
    (an overlap of one half there). Of such a group the best box that no seam cuts stays; if seams cut all of them, the
    box and the mask around all takes their place. The score is the best one's.
    """
    tiles = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    offsets = np.tile(windows[:, :2], 2).astype(np.float32)
    boxes = np.concatenate([part.boxes for part in parts]) + offsets[tiles]
    scores, labels = (np.concatenate([getattr(part, name) for part in parts]) for name in ("scores", "labels"))
    cut = cut_by_seams(boxes, windows[tiles], whole.height, whole.width)
    groups = grouped(boxes, labels, tiles, windows)
    masks = _shifted(parts, windows, whole.height, whole.width)
    rows = [_of_group(np.flatnonzero(groups == number), boxes, scores, cut, masks) for number in np.unique(groups)]
    order = np.argsort([-row.score for row in rows], kind="stable")
    chosen = [rows[index] for index in order.tolist()]
    return Prediction(
        boxes=np.array([row.box for row in chosen], np.float32).reshape(-1, 4),
        scores=np.array([row.score for row in chosen], np.float32),
        labels=np.array([labels[row.best] for row in chosen], np.int64),
        run_lengths=None if masks is None else [_run_lengths(row, whole.height, whole.width) for row in chosen],
        height=whole.height,
        width=whole.width,
        class_names=whole.class_names,
        category_ids=whole.category_ids,
        source=whole.source,
        pixels=whole.pixels,
    )


@dataclass(frozen=True)
class _Row:
    best: int
    box: Float32[np.ndarray, "4"]
    score: float
    mask: _Pixels | None


@dataclass(frozen=True)
class _Pixels:
    """A part of the whole image, with its corner."""

    pixels: Bool[np.ndarray, "h w"]
    x: int
    y: int


def _of_group(
    members: Int64[np.ndarray, " m"],
    boxes: Float32[np.ndarray, "n 4"],
    scores: Float32[np.ndarray, " n"],
    cut: Bool[np.ndarray, " n"],
    masks: Sequence[_Pixels] | None,
) -> _Row:
    """The object that a group of detections is."""
    ranked = members[np.argsort(-scores[members], kind="stable")]
    whole = ranked[~cut[ranked]]
    score = float(scores[ranked[0]])
    if len(whole):
        best = int(whole[0])
        return _Row(best, boxes[best], score, None if masks is None else masks[best])
    box = np.concatenate((boxes[ranked, :2].min(0), boxes[ranked, 2:].max(0)))
    together = None if masks is None else _union([masks[index] for index in ranked.tolist()])
    return _Row(int(ranked[0]), box, score, together)


def cut_by_seams(
    boxes: Float32[np.ndarray, "n 4"], tiles: Int64[np.ndarray, "n 4"], height: int, width: int
) -> Bool[np.ndarray, " n"]:
    """Whether a box ends at a border of its tile that is not the border of the image."""
    at_start = (boxes[:, :2] - tiles[:, :2] <= BORDER) & (tiles[:, :2] > 0)
    at_end = (tiles[:, 2:] - boxes[:, 2:] <= BORDER) & (tiles[:, 2:] < np.array([width, height]))
    return np.asarray((at_start | at_end).any(axis=1))


def grouped(
    boxes: Float32[np.ndarray, "n 4"],
    labels: Int64[np.ndarray, " n"],
    tiles: Int64[np.ndarray, " n"],
    windows: Int64[np.ndarray, "t 4"],
) -> Int64[np.ndarray, " n"]:
    """The number of each detection's group: the smallest index in it."""
    group = np.arange(len(boxes))
    for index in range(len(boxes)):
        shared = _common(windows[tiles[index]][None], windows[tiles[index + 1 :]])
        overlap = _overlap(_common(boxes[index][None], shared), _common(boxes[index + 1 :], shared))
        same = (labels[index + 1 :] == labels[index]) & (tiles[index + 1 :] != tiles[index]) & (overlap >= AGREEMENT)
        for other in (np.flatnonzero(same) + index + 1).tolist():
            low, high = sorted((group[index], group[other]))
            group[group == high] = low
    return group


def _common(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The intersection of boxes; one without area has no positive side."""
    return np.concatenate((np.maximum(first[:, :2], second[:, :2]), np.minimum(first[:, 2:], second[:, 2:])), axis=1)


def _overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    shared, *areas = (
        np.clip(box[:, 2:] - box[:, :2], 0, None).prod(axis=1) for box in (_common(first, second), first, second)
    )
    union = sum(areas) - shared
    return np.divide(shared, union, out=np.zeros(len(shared)), where=union > 0)


def _shifted(
    parts: Sequence[Prediction], windows: Int64[np.ndarray, "t 4"], height: int, width: int
) -> list[_Pixels] | None:
    """The masks of all tiles with their places in the whole image; None for a detector without masks."""
    masks: list[_Pixels] = []
    for part, (x, y, _, _) in zip(parts, windows.tolist(), strict=True):
        own = part.windows()
        if own is None:
            return None
        masks += [_Pixels(mask.pixels.astype(bool), mask.x + x, mask.y + y) for mask in own]
    return masks


def _union(masks: Sequence[_Pixels]) -> _Pixels:
    left, top = min(mask.x for mask in masks), min(mask.y for mask in masks)
    right = max(mask.x + mask.pixels.shape[1] for mask in masks)
    bottom = max(mask.y + mask.pixels.shape[0] for mask in masks)
    pixels = np.zeros((bottom - top, right - left), bool)
    for mask in masks:
        height, width = mask.pixels.shape
        pixels[mask.y - top : mask.y - top + height, mask.x - left : mask.x - left + width] |= mask.pixels
    return _Pixels(pixels, left, top)


def _run_lengths(row: _Row, height: int, width: int) -> RunLengths:
    assert row.mask is not None, "every row of a detector with masks has one"
    return encode_pixels(row.mask.pixels, row.mask.x, row.mask.y, height, width)


def crops(image: UInt8[np.ndarray, "H W 3"], windows: Int64[np.ndarray, "t 4"]) -> list[UInt8[np.ndarray, "h w 3"]]:
    """The pixels of each tile."""
    return [np.ascontiguousarray(image[y1:y2, x1:x2]) for x1, y1, x2, y2 in windows.tolist()]
