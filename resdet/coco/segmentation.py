"""Instance masks as in annotation files, packed into a few flat arrays and checked before use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64, UInt32
from pycocotools import mask as pycocotools_mask

from resdet.coco import run_lengths
from resdet.coco.run_lengths import RunLengths, Runs, compress, without_empty_runs

coco_mask: Any = pycocotools_mask  # its type annotations do not accept polygons
CHUNK = 8192  # annotations decoded at a time: limits the number of Python objects in memory

Polygons = list[list[float]]


class _FileRuns(msgspec.Struct, gc=False):
    """Run lengths as in a file: `counts` is compressed (str) or a list."""

    size: tuple[int, int]
    counts: str | list[int]


@dataclass(frozen=True)
class Segmentations:
    """The masks of M annotations: each is one or more polygons, or run lengths, or nothing. M1 = M + 1, P1 = P + 1.

    Annotation m owns polygons `polygon_rows[m]:polygon_rows[m + 1]`, polygon p the vertices
    `vertex_rows[p]:vertex_rows[p + 1]`, and annotation m the runs `run_rows[m]:run_rows[m + 1]` (background first, down
    the columns, height x width in all). Vertices are (x, y) in fifths of a pixel of the original image, rounded as in
    pycocotools' rasterizer, so that it sets the same pixels as for the numbers in the file.
    """

    polygon_rows: Int64[np.ndarray, " M1"]
    vertex_rows: Int64[np.ndarray, " P1"]
    fifths: Int32[np.ndarray, "V 2"]
    run_rows: Int64[np.ndarray, " M1"]
    runs: UInt32[np.ndarray, " S"]

    def __len__(self) -> int:
        return len(self.polygon_rows) - 1

    def polygons(self, index: int) -> list[Float64[np.ndarray, "n 2"]]:
        """The polygons of an annotation in pixels."""
        rows = range(self.polygon_rows[index], self.polygon_rows[index + 1])
        return [as_pixels(self.fifths[self.vertex_rows[row] : self.vertex_rows[row + 1]]) for row in rows]

    def run_lengths(self, index: int) -> UInt32[np.ndarray, " n"]:
        return self.runs[self.run_rows[index] : self.run_rows[index + 1]]

    def present(self) -> Bool[np.ndarray, " M"]:
        return (np.diff(self.polygon_rows) > 0) | (np.diff(self.run_rows) > 0)

    def encoded(self, index: int, height: int, width: int) -> RunLengths:
        """The mask of an annotation (which must have one) for an evaluator; `height` and `width` are the size of its
        image.
        """
        runs = self.run_lengths(index)
        if len(runs):
            return RunLengths(size=[height, width], counts=compress([runs.astype(np.int64)])[0])
        polygons = [polygon.ravel().tolist() for polygon in self.polygons(index)]
        return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))

    def take(self, rows: Int64[np.ndarray, " m"]) -> Segmentations:
        polygon_rows, polygons = take_groups(self.polygon_rows, rows)
        vertex_rows, vertices = take_groups(self.vertex_rows, polygons)
        run_rows, runs = take_groups(self.run_rows, rows)
        return Segmentations(polygon_rows, vertex_rows, self.fifths[vertices], run_rows, self.runs[runs])

    def first(self, count: int) -> Segmentations:
        """The masks of the first annotations, in the same memory."""
        polygon_rows, run_rows = self.polygon_rows[: count + 1], self.run_rows[: count + 1]
        vertex_rows = self.vertex_rows[: polygon_rows[-1] + 1]
        return Segmentations(
            polygon_rows, vertex_rows, self.fifths[: vertex_rows[-1]], run_rows, self.runs[: run_rows[-1]]
        )

    def without(self, dropped: Bool[np.ndarray, " M"]) -> Segmentations:
        """The same annotations, with the masks of the given ones removed."""
        polygon_counts = np.where(dropped, 0, np.diff(self.polygon_rows))
        run_counts = np.where(dropped, 0, np.diff(self.run_rows))
        kept = self.take(np.flatnonzero(~dropped))
        return Segmentations(
            row_offsets(polygon_counts), kept.vertex_rows, kept.fifths, row_offsets(run_counts), kept.runs
        )


def as_pixels(fifths: Int32[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
    """Coordinates that the rasterizer, which computes int(5 x + 0.5), rounds to the same fifths again."""
    return np.where(fifths < 0, fifths - 0.75, fifths) / 5  # int() rounds towards zero


def take_groups(
    offsets: Int64[np.ndarray, " g1"], groups: Int64[np.ndarray, " t"]
) -> tuple[Int64[np.ndarray, " t+1"], Int64[np.ndarray, " n"]]:
    """Offsets of the chosen groups, packed one after another, and the indices of their members."""
    lengths = np.diff(offsets)[groups]
    packed = row_offsets(lengths)
    members = np.arange(packed[-1]) + np.repeat(offsets[groups] - packed[:-1], lengths)
    return packed, members


def row_offsets(lengths: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n+1"]:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)))


@dataclass(frozen=True)
class PackedMasks:
    """The usable masks; by reason, the annotations whose mask was removed or is cut at the image's edge."""

    masks: Segmentations
    skipped: dict[str, Int64[np.ndarray, " _"]]
    clipped: dict[str, Int64[np.ndarray, " _"]]


def pack(
    raws: Sequence[msgspec.Raw],
    heights: Int64[np.ndarray, " M"],
    widths: Int64[np.ndarray, " M"],
    refuse: Callable[[int, str], None],
) -> PackedMasks:
    """Parse and check the `segmentation` fields of M annotations.

    `heights`, `widths`: the size of each annotation's image, 0 if unknown. `refuse(m, reason)` is called for a mask
    that is certainly wrong (run lengths that do not fill the image, numbers beyond float32); if it does not raise, the
    mask is removed.
    """
    packer = _Packer(heights, widths, refuse)
    for start in range(0, len(raws), CHUNK):
        packer.add(start, _decode(raws[start : start + CHUNK]))
    return packer.finish()


_DECODER = msgspec.json.Decoder(list[Polygons | _FileRuns | None])
_ONE = msgspec.json.Decoder(Polygons | _FileRuns | None)
_MALFORMED = "malformed polygon"
_Mask = Polygons | _FileRuns | str | None


def _decode(raws: Sequence[msgspec.Raw]) -> list[_Mask]:
    try:
        return list(_DECODER.decode(b"[" + b",".join(raws) + b"]"))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return [_decode_one(raw) for raw in raws]


def _decode_one(raw: msgspec.Raw) -> _Mask:
    try:
        return _ONE.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        if bytes(raw).lstrip()[:1] == b"{":
            return f"no run-length encoding ({error})"
        return f"number beyond all pixels ({error})" if "out of range" in str(error) else _MALFORMED


class _Packer:
    """Collects portions; every list is concatenated once, at the end."""

    def __init__(
        self, heights: Int64[np.ndarray, " M"], widths: Int64[np.ndarray, " M"], refuse: Callable[[int, str], None]
    ) -> None:
        self.heights, self.widths, self.refuse = heights, widths, refuse
        self.polygon_counts = np.zeros(len(heights), np.int64)
        self.run_counts = np.zeros(len(heights), np.int64)
        self.vertex_counts: list[Int64[np.ndarray, " _"]] = [np.zeros(0, np.int64)]
        self.fifths: list[Int32[np.ndarray, "_ 2"]] = [np.zeros((0, 2), np.int32)]
        self.runs: list[UInt32[np.ndarray, " _"]] = [np.zeros(0, np.uint32)]
        self.skipped: dict[int, str] = {}
        self.clipped: list[int] = []

    def add(self, start: int, masks: Sequence[_Mask]) -> None:
        owners: list[int] = []
        polygons: list[list[float]] = []
        encoded: list[tuple[int, _FileRuns]] = []
        for index, mask in enumerate(masks, start):
            if not mask:
                continue
            if not self.heights[index]:
                self.skipped[index] = "mask of an image whose size is not given"
            elif isinstance(mask, list):
                owners.extend([index] * len(mask))
                polygons.extend(mask)
            elif isinstance(mask, _FileRuns):
                encoded.append((index, mask))
            elif mask == _MALFORMED:
                self.skipped[index] = mask
            else:
                self.leave_out(index, mask)
        if polygons:
            self.add_polygons(np.array(owners), polygons)
        if encoded:
            self.add_runs(encoded)

    def leave_out(self, index: int, reason: str) -> None:
        self.refuse(index, reason)
        self.skipped.setdefault(index, reason)

    def add_runs(self, encoded: Sequence[tuple[int, _FileRuns]]) -> None:
        right: list[tuple[int, Int64[np.ndarray, " _"]]] = []
        strings = [mask.counts.encode() for _, mask in encoded if isinstance(mask.counts, str)]
        decoded, faults = run_lengths.decode(strings)
        string = -1
        for index, mask in encoded:
            height, width = int(self.heights[index]), int(self.widths[index])
            if isinstance(mask.counts, str):
                string += 1
                counts = None if string in faults else decoded[string]
            else:
                counts = _plain_counts(mask.counts)
            if mask.size != (height, width):
                self.leave_out(index, f"size {list(mask.size)} is not the image's [{height}, {width}]")
            elif counts is None:
                self.leave_out(index, f"counts are no run lengths that add up to {height} x {width} pixels")
            else:
                right.append((index, counts))
        self.keep_runs(np.array([index for index, _ in right], np.int64), Runs.of([counts for _, counts in right]))

    def keep_runs(self, owners: Int64[np.ndarray, " n"], runs: Runs) -> None:
        heights, widths = self.heights[owners], self.widths[owners]
        faults = runs.faults(heights * widths)
        for position in sorted(faults):
            height, width = int(heights[position]), int(widths[position])
            self.leave_out(int(owners[position]), f"counts are no run lengths that add up to {height} x {width} pixels")
        uneven = set(runs.with_empty_runs().tolist())
        for position in range(len(runs)):
            if position in faults:
                continue
            numbers = without_empty_runs(runs[position]) if position in uneven else runs[position]
            self.run_counts[owners[position]] = len(numbers)
            self.runs.append(numbers.astype(np.uint32))

    def add_polygons(self, owners: Int64[np.ndarray, " p"], polygons: list[list[float]]) -> None:
        lengths = np.fromiter(map(len, polygons), np.int64, len(polygons))
        numbers = np.fromiter(chain.from_iterable(polygons), np.float64, int(lengths.sum()))
        number_owner = np.repeat(owners, lengths)
        for position in np.flatnonzero(np.abs(numbers) > np.finfo(np.float32).max).tolist():
            self.leave_out(int(number_owner[position]), f"number beyond all pixels ({numbers[position]:g})")

        is_y = (np.arange(len(numbers)) - np.repeat(row_offsets(lengths)[:-1], lengths)) % 2 == 1
        extent = np.where(is_y, self.heights[number_owner], self.widths[number_owner])
        unusable = {
            "polygon with fewer than 3 points": owners[lengths < 6],
            "polygon with an odd number of coordinates": owners[lengths % 2 == 1],
            # Up to one image size beyond the border is accepted; more is an error, and would cost the rasterizer
            # memory.
            "polygon far outside its image": number_owner[(numbers < -extent) | (numbers > 2 * extent)],
        }
        for reason, culprits in unusable.items():
            for index in np.unique(culprits).tolist():
                self.skipped.setdefault(index, reason)

        usable = ~np.isin(owners, np.array(list(self.skipped), np.int64))
        kept = np.repeat(usable, lengths)
        overhang = kept & ((numbers < -1) | (numbers > extent + 1))  # COCO's own polygons often touch the border
        self.clipped.extend(np.unique(number_owner[overhang]).tolist())
        self.fifths.append(np.trunc(5 * numbers[kept] + 0.5).astype(np.int32).reshape(-1, 2))
        self.vertex_counts.append(lengths[usable] // 2)
        np.add.at(self.polygon_counts, owners[usable], 1)

    def finish(self) -> PackedMasks:
        masks = Segmentations(
            polygon_rows=row_offsets(self.polygon_counts),
            vertex_rows=row_offsets(np.concatenate(self.vertex_counts)),
            fifths=np.concatenate(self.fifths),
            run_rows=row_offsets(self.run_counts),
            runs=np.concatenate(self.runs),
        )
        skipped: dict[str, list[int]] = {}
        for index, reason in sorted(self.skipped.items()):
            skipped.setdefault(reason, []).append(index)
        clipped = {"polygon cut at its image's border": self.clipped} if self.clipped else {}
        return PackedMasks(masks, _arrays(skipped), _arrays(clipped))


def _arrays(rows: dict[str, list[int]]) -> dict[str, Int64[np.ndarray, " _"]]:
    return {reason: np.array(indices, np.int64) for reason, indices in rows.items()}


def _plain_counts(counts: list[int]) -> Int64[np.ndarray, " n"] | None:
    try:
        numbers = np.array(counts, np.int64)
    except OverflowError:
        return None
    return numbers if np.abs(numbers).max(initial=0) < 2**40 else None  # so that sums fit into 64 bits
