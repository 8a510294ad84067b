"""Instance masks as annotation files hold them, packed into a few flat arrays and checked before use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NoReturn

import msgspec
import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt32

CHUNK = 8192  # annotations decoded at a time: bounds the Python objects that exist at once

Polygons = list[list[float]]


class RunLengths(msgspec.Struct, gc=False):
    """COCO's run-length encoding: column by column, background first; `counts` compressed (str) or plain."""

    size: tuple[int, int]
    counts: str | list[int]


@dataclass(frozen=True)
class Segmentations:
    """The masks of M annotations: each is one or more polygons, or run lengths, or nothing. M1 = M + 1, P1 = P + 1.

    Annotation m owns polygons `polygon_rows[m]:polygon_rows[m + 1]`, polygon p the vertices
    `vertex_rows[p]:vertex_rows[p + 1]` (x, y in pixels of the original image), and annotation m the runs
    `run_rows[m]:run_rows[m + 1]` (background first, down the columns, height x width in all).
    """

    polygon_rows: Int64[np.ndarray, " M1"]
    vertex_rows: Int64[np.ndarray, " P1"]
    vertices: Float32[np.ndarray, "V 2"]
    run_rows: Int64[np.ndarray, " M1"]
    runs: UInt32[np.ndarray, " S"]

    def __len__(self) -> int:
        return len(self.polygon_rows) - 1

    def polygons(self, index: int) -> list[Float32[np.ndarray, "n 2"]]:
        rows = range(self.polygon_rows[index], self.polygon_rows[index + 1])
        return [self.vertices[self.vertex_rows[row] : self.vertex_rows[row + 1]] for row in rows]

    def run_lengths(self, index: int) -> UInt32[np.ndarray, " n"]:
        return self.runs[self.run_rows[index] : self.run_rows[index + 1]]

    def present(self) -> Bool[np.ndarray, " M"]:
        return (np.diff(self.polygon_rows) > 0) | (np.diff(self.run_rows) > 0)

    def take(self, rows: Int64[np.ndarray, " m"]) -> Segmentations:
        polygon_rows, polygons = take_groups(self.polygon_rows, rows)
        vertex_rows, vertices = take_groups(self.vertex_rows, polygons)
        run_rows, runs = take_groups(self.run_rows, rows)
        return Segmentations(polygon_rows, vertex_rows, self.vertices[vertices], run_rows, self.runs[runs])


def take_groups(
    offsets: Int64[np.ndarray, " g1"], groups: Int64[np.ndarray, " t"]
) -> tuple[Int64[np.ndarray, " t+1"], Int64[np.ndarray, " n"]]:
    """Offsets of the chosen groups packed one behind another, and the members to gather for them."""
    lengths = np.diff(offsets)[groups]
    packed = row_offsets(lengths)
    members = np.arange(packed[-1]) + np.repeat(offsets[groups] - packed[:-1], lengths)
    return packed, members


def row_offsets(lengths: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n+1"]:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)))


@dataclass(frozen=True)
class PackedMasks:
    """The usable masks; by reason, the annotations whose mask was left out, or cut at the image's edge."""

    masks: Segmentations
    skipped: dict[str, Int64[np.ndarray, " _"]]
    clipped: dict[str, Int64[np.ndarray, " _"]]


def pack(
    raws: Sequence[msgspec.Raw],
    heights: Int64[np.ndarray, " M"],
    widths: Int64[np.ndarray, " M"],
    refuse: Callable[[int, str], NoReturn],
) -> PackedMasks:
    """Parse and check the `segmentation` fields of M annotations.

    `heights`, `widths`: of the image that each annotation lies in. `refuse(m, reason)` raises for what must not
    pass: run lengths that do not fill the image, numbers beyond float32.
    """
    packer = _Packer(heights, widths, refuse)
    for start in range(0, len(raws), CHUNK):
        packer.add(start, _decode(raws[start : start + CHUNK]))
    return packer.finish()


_DECODER = msgspec.json.Decoder(list[Polygons | RunLengths | None])
_ONE = msgspec.json.Decoder(Polygons | RunLengths | None)
_MALFORMED = "malformed"


def _decode(raws: Sequence[msgspec.Raw]) -> list[Polygons | RunLengths | str | None]:
    try:
        return list(_DECODER.decode(b"[" + b",".join(raws) + b"]"))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return [_decode_one(raw) for raw in raws]


def _decode_one(raw: msgspec.Raw) -> Polygons | RunLengths | str | None:
    try:
        return _ONE.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        if bytes(raw).lstrip()[:1] == b"{":
            return f"no run-length encoding ({error})"
        return f"number beyond all pixels ({error})" if "out of range" in str(error) else _MALFORMED


class _Packer:
    """Gathers chunks; every list is concatenated once, at the end."""

    def __init__(
        self, heights: Int64[np.ndarray, " M"], widths: Int64[np.ndarray, " M"], refuse: Callable[[int, str], NoReturn]
    ) -> None:
        self.heights, self.widths, self.refuse = heights, widths, refuse
        self.polygon_counts = np.zeros(len(heights), np.int64)
        self.run_counts = np.zeros(len(heights), np.int64)
        self.vertex_counts: list[Int64[np.ndarray, " _"]] = [np.zeros(0, np.int64)]
        self.vertices: list[Float32[np.ndarray, "_ 2"]] = [np.zeros((0, 2), np.float32)]
        self.runs: list[UInt32[np.ndarray, " _"]] = [np.zeros(0, np.uint32)]
        self.skipped: dict[int, str] = {}
        self.clipped: list[int] = []

    def add(self, start: int, masks: Sequence[Polygons | RunLengths | str | None]) -> None:
        owners: list[int] = []
        polygons: list[list[float]] = []
        for index, mask in enumerate(masks, start):
            if isinstance(mask, list):
                owners.extend([index] * len(mask))
                polygons.extend(mask)
            elif isinstance(mask, RunLengths):
                self.add_runs(index, mask)
            elif mask == _MALFORMED:
                self.skipped[index] = "malformed polygon"
            elif mask is not None:
                self.refuse(index, mask)
        if polygons:
            self.add_polygons(np.array(owners), polygons)

    def add_runs(self, index: int, mask: RunLengths) -> None:
        height, width = int(self.heights[index]), int(self.widths[index])
        if mask.size != (height, width):
            self.refuse(index, f"size {list(mask.size)} is not the image's [{height}, {width}]")
        counts = decompress(mask.counts) if isinstance(mask.counts, str) else _plain_counts(mask.counts)
        if counts is None or counts.min(initial=0) < 0 or counts.sum() != height * width:
            self.refuse(index, f"counts are no run lengths that add up to {height} x {width} pixels")
        self.run_counts[index] = len(counts)
        self.runs.append(counts.astype(np.uint32))

    def add_polygons(self, owners: Int64[np.ndarray, " p"], polygons: list[list[float]]) -> None:
        lengths = np.fromiter(map(len, polygons), np.int64, len(polygons))
        numbers = np.fromiter(chain.from_iterable(polygons), np.float64, int(lengths.sum()))
        number_owner = np.repeat(owners, lengths)
        beyond = np.abs(numbers) > np.finfo(np.float32).max
        if beyond.any():
            self.refuse(int(number_owner[beyond.argmax()]), f"number beyond all pixels ({numbers[beyond][0]:g})")

        is_y = (np.arange(len(numbers)) - np.repeat(row_offsets(lengths)[:-1], lengths)) % 2 == 1
        extent = np.where(is_y, self.heights[number_owner], self.widths[number_owner])
        unusable = {
            "polygon with fewer than 3 points": owners[lengths < 6],
            "polygon with an odd number of coordinates": owners[lengths % 2 == 1],
            "polygon far outside its image": number_owner[(numbers < -extent) | (numbers > 2 * extent)],
        }
        for reason, culprits in unusable.items():
            for index in np.unique(culprits).tolist():
                self.skipped.setdefault(index, reason)

        usable = ~np.isin(owners, np.array(list(self.skipped), np.int64))
        kept = np.repeat(usable, lengths)
        overhang = kept & ((numbers < -1) | (numbers > extent + 1))  # COCO's own polygons touch the border freely
        self.clipped.extend(np.unique(number_owner[overhang]).tolist())
        self.vertices.append(np.clip(numbers, 0, extent)[kept].astype(np.float32).reshape(-1, 2))
        self.vertex_counts.append(lengths[usable] // 2)
        np.add.at(self.polygon_counts, owners[usable], 1)

    def finish(self) -> PackedMasks:
        masks = Segmentations(
            polygon_rows=row_offsets(self.polygon_counts),
            vertex_rows=row_offsets(np.concatenate(self.vertex_counts)),
            vertices=np.concatenate(self.vertices),
            run_rows=row_offsets(self.run_counts),
            runs=np.concatenate(self.runs),
        )
        skipped: dict[str, list[int]] = {}
        for index, reason in sorted(self.skipped.items()):
            skipped.setdefault(reason, []).append(index)
        clipped = {"polygon clipped to its image": self.clipped} if self.clipped else {}
        return PackedMasks(masks, _arrays(skipped), _arrays(clipped))


def _arrays(rows: dict[str, list[int]]) -> dict[str, Int64[np.ndarray, " _"]]:
    return {reason: np.array(indices, np.int64) for reason, indices in rows.items()}


def decompress(text: str) -> Int64[np.ndarray, " n"] | None:
    """Run lengths from COCO's compressed string; None where it is none.

    Five bits a character, least significant first, bit 6 says that more follow; from the fourth number on,
    each is the difference to the one two before (pycocotools' `rleFrString`).
    """
    data = np.frombuffer(text.encode(), np.uint8).astype(np.int64) - 48
    if not len(data) or data.min() < 0 or data.max() > 63 or data[-1] & 32:
        return None
    ends = np.flatnonzero((data & 32) == 0)
    lengths = np.diff(ends, prepend=-1)
    if lengths.max() > 8:  # 40 bits: more than any image has pixels
        return None
    position = np.arange(len(data)) - np.repeat(ends - lengths + 1, lengths)
    numbers = np.add.reduceat((data & 31) << (5 * position), ends - lengths + 1)
    numbers -= ((data[ends] & 16) != 0) * (np.int64(1) << (5 * lengths))
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def _plain_counts(counts: list[int]) -> Int64[np.ndarray, " n"] | None:
    try:
        return np.array(counts, np.int64)
    except OverflowError:
        return None
