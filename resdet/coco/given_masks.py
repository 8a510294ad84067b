"""The `segmentation` fields of a COCO file as flat arrays, before their images are known.

Almost every field is a list of polygons. A portion of such fields is parsed by simdjson into one array of numbers,
without a Python object for each; whatever is not of this kind is parsed by msgspec, field by field where it has to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, compress
from typing import Any, NamedTuple

import msgspec
import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from resdet.coco import run_lengths
from resdet.coco.groups import row_offsets, take_members

try:
    import simdjson  # pyright: ignore[reportMissingImports]
except ImportError:  # not in every installation (extra `fast`): msgspec then reads the polygons too, more slowly
    simdjson = None  # pyright: ignore[reportAssignmentType]

OPENING = ord("[")
PORTION = 8192  # fields that are parsed at a time: limits the number of Python objects in memory

Polygons = list[list[float]]


class FileRuns(msgspec.Struct, gc=False):
    """Run lengths as in a file: `counts` is compressed (str) or a list."""

    size: tuple[int, int]
    counts: str | list[int]


class Fault(NamedTuple):
    """Why a mask cannot be used whatever its image is. `certain`: the file is wrong, otherwise the mask is left out."""

    reason: str
    certain: bool


@dataclass(frozen=True)
class GivenMasks:
    """The masks of M annotations: each is one or more polygons, or run lengths, or nothing, or faulty. M1 = M + 1,
    P1 = P + 1.

    Annotation m owns polygons `polygon_rows[m]:polygon_rows[m + 1]`, polygon p the vertices
    `vertex_rows[p]:vertex_rows[p + 1]`, and annotation m the runs `run_rows[m]:run_rows[m + 1]`. Vertices are (x, y) in
    fifths of a pixel, rounded as in pycocotools' rasterizer; `bounds` are x1, y1, x2, y2 of each polygon's numbers in
    the file, and `wide` polygons have an area larger than their perimeter (in pixels). `encoded` annotations have run
    lengths for an image of `sizes` (height, width). The annotations in `faults` have neither polygons nor runs.
    """

    polygon_rows: Int64[np.ndarray, " M1"]
    vertex_rows: Int64[np.ndarray, " P1"]
    fifths: Int32[np.ndarray, "V 2"]
    bounds: Float64[np.ndarray, "P 4"]
    wide: Bool[np.ndarray, " P"]
    encoded: Bool[np.ndarray, " M"]
    sizes: Int64[np.ndarray, "M 2"]
    run_rows: Int64[np.ndarray, " M1"]
    runs: Int64[np.ndarray, " S"]
    faults: dict[int, Fault]

    def __len__(self) -> int:
        return len(self.polygon_rows) - 1

    def present(self) -> Bool[np.ndarray, " M"]:
        """Whether an annotation has a mask, even one that cannot be used."""
        found = (np.diff(self.polygon_rows) > 0) | self.encoded
        found[list(self.faults)] = True
        return found

    def take(self, rows: Int64[np.ndarray, " m"]) -> GivenMasks:
        """Those of the chosen annotations, in the given order, none of them twice."""
        polygon_rows, polygons = take_members(np.arange(len(self.bounds)), self.polygon_rows, rows)
        vertex_rows, fifths = take_members(self.fifths, self.vertex_rows, polygons)
        run_rows, runs = take_members(self.runs, self.run_rows, rows)
        position = np.full(len(self), -1)
        position[rows] = np.arange(len(rows))
        faults = {int(position[row]): fault for row, fault in self.faults.items() if position[row] >= 0}
        return GivenMasks(
            polygon_rows,
            vertex_rows,
            fifths,
            self.bounds[polygons],
            self.wide[polygons],
            self.encoded[rows],
            self.sizes[rows],
            run_rows,
            runs,
            faults,
        )

    @classmethod
    def joined(cls, parts: Sequence[GivenMasks]) -> GivenMasks:
        """The masks of all parts, one part after another."""
        starts = np.cumsum([0, *map(len, parts)]).tolist()
        return cls(
            _joined_rows([part.polygon_rows for part in parts]),
            _joined_rows([part.vertex_rows for part in parts]),
            np.concatenate([part.fifths for part in parts]),
            np.concatenate([part.bounds for part in parts]),
            np.concatenate([part.wide for part in parts]),
            np.concatenate([part.encoded for part in parts]),
            np.concatenate([part.sizes for part in parts]),
            _joined_rows([part.run_rows for part in parts]),
            np.concatenate([part.runs for part in parts]),
            {
                start + row: fault
                for start, part in zip(starts, parts, strict=False)
                for row, fault in part.faults.items()
            },
        )


def _joined_rows(parts: Sequence[Int64[np.ndarray, " _"]]) -> Int64[np.ndarray, " n1"]:
    return row_offsets(np.concatenate([np.diff(rows) for rows in parts]))


def parse_masks(raws: Sequence[msgspec.Raw]) -> GivenMasks:
    """The masks of `segmentation` fields, as the JSON text of each."""
    starts = range(0, max(len(raws), 1), PORTION)
    parts = [_portion(raws[start : start + PORTION]) for start in starts]
    return GivenMasks.joined(parts) if len(parts) > 1 else parts[0]


def _portion(raws: Sequence[msgspec.Raw]) -> GivenMasks:
    texts = list(map(bytes, raws))
    faults: dict[int, Fault] = {}
    encoded: dict[int, FileRuns] = {}
    are_lists = [text[0] == OPENING for text in texts]
    lists, others = list(compress(range(len(texts)), are_lists)), range(len(texts))
    if (found := _flat(list(compress(texts, are_lists)))) is not None:
        others = [row for row in others if not are_lists[row]]
    written: dict[int, Polygons] = {}
    for row, mask in zip(others, _decode([texts[row] for row in others]), strict=True):
        if isinstance(mask, Fault):
            faults[row] = mask
        elif isinstance(mask, FileRuns):
            encoded[row] = mask
        elif mask:
            written[row] = mask
    if found is None:
        lists, found = list(written), _Flat.of(list(written.values()))
    return _checked(len(texts), np.array(lists, np.int64), found, encoded, faults)


class _Flat(NamedTuple):
    """Polygons as the number of polygons of each mask, the number of numbers of each polygon, and all numbers."""

    polygons: Int64[np.ndarray, " m"]
    lengths: Int64[np.ndarray, " p"]
    numbers: Float64[np.ndarray, " n"]

    @classmethod
    def of(cls, masks: Sequence[Polygons]) -> _Flat:
        polygons = [polygon for mask in masks for polygon in mask]
        lengths = np.fromiter(map(len, polygons), np.int64, len(polygons))
        numbers = np.fromiter(chain.from_iterable(polygons), np.float64, int(lengths.sum()))
        return cls(np.fromiter(map(len, masks), np.int64, len(masks)), lengths, numbers)


def _flat(masks: Sequence[bytes]) -> _Flat | None:
    """The numbers of many masks that are all lists of lists of numbers; None if one of them is something else."""
    if simdjson is None:
        return None
    try:
        text = b"[" + b",".join(masks) + b"]"
        document: Any = simdjson.Parser().parse(text)
        polygons: list[int] = []
        lengths: list[int] = []
        for mask in document:
            polygons.append(len(mask))
            lengths.extend(map(len, mask))
        numbers = np.frombuffer(document.as_buffer(of_type="d"), np.float64)
    except (ValueError, TypeError, RuntimeError):
        return None
    flat = _Flat(np.array(polygons, np.int64), np.array(lengths, np.int64), numbers)
    lists = 1 + len(polygons) + len(lengths)  # more, if coordinates are lists, whose numbers the buffer has, too
    return flat if int(flat.lengths.sum()) == len(numbers) and _count(text, OPENING) == lists else None


def _count(text: bytes, character: int) -> int:
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == character))  # several times as fast as bytes.count


_DECODER = msgspec.json.Decoder(list[Polygons | FileRuns | None])
_ONE = msgspec.json.Decoder(Polygons | FileRuns | None)


def _decode(masks: Sequence[bytes]) -> list[Polygons | FileRuns | Fault | None]:
    try:
        return list(_DECODER.decode(b"[" + b",".join(masks) + b"]"))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return [_decode_one(mask) for mask in masks]


def _decode_one(mask: bytes) -> Polygons | FileRuns | Fault | None:
    try:
        return _ONE.decode(mask)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        if mask.startswith(b"{"):
            return Fault(f"no run-length encoding ({error})", certain=True)
        if "out of range" in str(error):
            return Fault(f"number beyond all pixels ({error})", certain=True)
        return Fault("malformed polygon", certain=False)


def _checked(
    count: int,
    rows: Int64[np.ndarray, " m"],
    found: _Flat,
    encoded: dict[int, FileRuns],
    faults: dict[int, Fault],
) -> GivenMasks:
    """The masks of `count` annotations; `found` are the polygons of `rows`. Polygons of faulty annotations are left
    out.
    """
    owners = np.repeat(rows, found.polygons)
    lengths, numbers = found.lengths, found.numbers
    faults |= _polygon_faults(owners, lengths, numbers)
    if faults:
        sound = ~np.isin(owners, list(faults))
        numbers = numbers[np.repeat(sound, lengths)]
        owners, lengths = owners[sound], lengths[sound]
    vertices, fifths = row_offsets(lengths // 2), to_fifths(numbers).reshape(-1, 2)
    x, y = np.ascontiguousarray(numbers[::2]), np.ascontiguousarray(numbers[1::2])
    starts = vertices[:-1]
    extremes = [kind.reduceat(axis, starts) for kind in (np.minimum, np.maximum) for axis in (x, y)] if len(x) else []
    sizes, run_lists = np.zeros((count, 2), np.int64), _runs(encoded)
    for row, mask in encoded.items():
        sizes[row] = [min(max(side, -(2**63)), 2**63 - 1) for side in mask.size]
    run_counts = np.zeros(count, np.int64)
    run_counts[list(run_lists)] = [len(runs) for runs in run_lists.values()]
    return GivenMasks(
        polygon_rows=row_offsets(np.bincount(owners, minlength=count)),
        vertex_rows=vertices,
        fifths=fifths,
        bounds=np.stack(extremes, axis=1) if extremes else np.zeros((0, 4)),
        wide=_wide(fifths, starts, vertices[1:]) if len(x) else np.zeros(0, bool),
        encoded=np.isin(np.arange(count), list(encoded)),
        sizes=sizes,
        run_rows=row_offsets(run_counts),
        runs=np.concatenate([np.zeros(0, np.int64), *(run_lists[row] for row in sorted(run_lists))]),
        faults=faults,
    )


def to_fifths(numbers: Float64[np.ndarray, "*shape"]) -> Int32[np.ndarray, "*shape"]:
    """Pixels as fifths of a pixel, rounded as in pycocotools' rasterizer: towards zero, after a half is added."""
    rounded = 5 * numbers
    rounded += 0.5
    return np.clip(rounded, -(2**31), 2**31 - 1, out=rounded).astype(np.int32)


def _wide(
    fifths: Int32[np.ndarray, "V 2"], starts: Int64[np.ndarray, " P"], ends: Int64[np.ndarray, " P"]
) -> Bool[np.ndarray, " P"]:
    """Polygons with an area larger than their perimeter, in pixels: 25 fifths by 5 fifths."""
    x, y = fifths.T.astype(np.float64)
    next_x, next_y = np.empty_like(x), np.empty_like(y)
    for axis, following in ((x, next_x), (y, next_y)):
        following[:-1] = axis[1:]
        following[ends - 1] = axis[starts]
    doubled = np.abs(np.add.reduceat(x * next_y - next_x * y, starts))
    perimeter = np.add.reduceat(np.sqrt((next_x - x) ** 2 + (next_y - y) ** 2), starts)
    return doubled / 2 / 25 > perimeter / 5


def _polygon_faults(
    owners: Int64[np.ndarray, " p"], lengths: Int64[np.ndarray, " p"], numbers: Float64[np.ndarray, " n"]
) -> dict[int, Fault]:
    faults: dict[int, Fault] = {}
    if max(numbers.max(initial=0), -numbers.min(initial=0)) > np.finfo(np.float32).max:
        number_owner = np.repeat(owners, lengths)
        for place in np.flatnonzero(np.abs(numbers) > np.finfo(np.float32).max).tolist():
            reason = f"number beyond all pixels ({numbers[place]:g})"
            _ = faults.setdefault(int(number_owner[place]), Fault(reason, certain=True))
    for reason, culprits in (
        ("polygon with fewer than 3 points", owners[lengths < 6]),
        ("polygon with an odd number of coordinates", owners[lengths % 2 == 1]),
    ):
        for row in np.unique(culprits).tolist():
            _ = faults.setdefault(row, Fault(reason, certain=False))
    return faults


def _runs(encoded: dict[int, FileRuns]) -> dict[int, Int64[np.ndarray, " _"]]:
    """The run lengths of each mask; of one that is no encoding of any image, a negative one."""
    strings = {row: mask.counts.encode() for row, mask in encoded.items() if isinstance(mask.counts, str)}
    decoded, wrong = run_lengths.decode(list(strings.values()))
    place = {row: at for at, row in enumerate(strings)}
    return {
        row: (NO_RUNS if place[row] in wrong else decoded[place[row]])
        if isinstance(mask.counts, str)
        else _plain_counts(mask.counts)
        for row, mask in encoded.items()
    }


NO_RUNS = np.array([-1], np.int64)  # adds up to no image


def _plain_counts(counts: list[int]) -> Int64[np.ndarray, " n"]:
    try:
        numbers = np.array(counts, np.int64)
    except OverflowError:
        return NO_RUNS
    return numbers if np.abs(numbers).max(initial=0) < 2**40 else NO_RUNS  # so that sums fit into 64 bits
