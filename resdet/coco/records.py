"""The records of a COCO file: typed structs, one an entry, and the annotations as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from operator import attrgetter
from typing import Annotated

import msgspec
import numpy as np
from jaxtyping import Bool, Float64, Int64

from resdet.coco.given_masks import GivenMasks, parse_masks

Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class ImageRecord(msgspec.Struct, gc=False):
    """Training needs the first four fields; scoring needs the id, and also the size for masks and the image border.

    LVIS gives the address of an image in place of its file name, and says which classes were looked for in it: those of
    its annotations, all of them (or not all: `not_exhaustive_category_ids`), and those that are absent.
    """

    id: Id
    file_name: str | None = None
    height: Id | None = None
    width: Id | None = None
    coco_url: str | None = None
    neg_category_ids: list[Id] | None = None
    not_exhaustive_category_ids: list[Id] | None = None


class AnnotationRecord(msgspec.Struct, gc=False):
    id: Id
    image_id: Id
    category_id: Id
    bbox: tuple[float, float, float, float]  # x, y, width, height
    area: float | None = None
    iscrowd: int | bool | None = None
    difficult: int | bool | None = None  # Pascal VOC's
    ignore: int | bool | None = None  # the same meaning under another name
    segmentation: msgspec.Raw = msgspec.Raw(b"[]")  # a view of the file, parsed in portions


class CategoryRecord(msgspec.Struct, gc=False):
    id: Id
    name: str | None = None
    frequency: str | None = None  # LVIS's r, c and f


COLUMNS = attrgetter("id", "image_id", "category_id", "area", "iscrowd", "difficult", "ignore", "segmentation")


@dataclass(frozen=True)
class Records:
    """A annotations as columns, in the file's order, before any verdict.

    `boxes` are (x, y, width, height) as in the file. An area or a crowd flag that is missing or null is NaN.
    """

    ids: Int64[np.ndarray, " A"]
    image_ids: Int64[np.ndarray, " A"]
    category_ids: Int64[np.ndarray, " A"]
    boxes: Float64[np.ndarray, "A 4"]
    areas: Float64[np.ndarray, " A"]
    crowd: Float64[np.ndarray, " A"]
    difficult: Bool[np.ndarray, " A"]
    masks: GivenMasks

    @classmethod
    def of(cls, records: Sequence[AnnotationRecord]) -> Records:
        count = len(records)
        columns = list(zip(*map(COLUMNS, records), strict=True)) if count else [()] * 8
        ids, image_ids, category_ids, areas, crowd, difficult, ignore, masks = columns
        numbers = chain.from_iterable(record.bbox for record in records)
        flags = np.zeros(count, bool)
        if any(difficult) or any(ignore):
            flags = np.fromiter(map(bool, difficult), bool, count) | np.fromiter(map(bool, ignore), bool, count)
        return cls(
            np.array(ids, np.int64),
            np.array(image_ids, np.int64),
            np.array(category_ids, np.int64),
            np.fromiter(numbers, np.float64, 4 * count).reshape(-1, 4),
            np.array(areas, np.float64),  # None becomes NaN
            np.array(crowd, np.float64),
            flags,
            parse_masks(masks),
        )

    @classmethod
    def joined(cls, parts: Sequence[Records]) -> Records:
        """The annotations of all parts, one part after another."""
        if len(parts) == 1:
            return parts[0]
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
        return cls(**columns, masks=GivenMasks.joined([part.masks for part in parts]))

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Int64[np.ndarray, " n"]) -> Records:
        """The chosen annotations, in the given order."""
        columns = {name: getattr(self, name)[rows] for name in ARRAYS}
        return Records(**columns, masks=self.masks.take(rows))


class Collected:
    """Annotations that come in portions. Their vertices need most of the memory, so they are kept once, in one array
    that grows in place.
    """

    def __init__(self) -> None:
        self._parts: list[Records] = []
        self._fifths, self._used = np.zeros((0, 2), np.int32), 0

    def add(self, part: Records) -> None:
        fifths, used = part.masks.fifths, self._used + len(part.masks.fifths)
        if used > len(self._fifths):
            self._fifths.resize((max(used, used + used // 8), 2), refcheck=False)
        self._fifths[self._used : used] = fifths
        self._used = used
        self._parts.append(replace(part, masks=replace(part.masks, fifths=fifths[:0].copy())))

    def records(self) -> Records:
        self._fifths.resize((self._used, 2), refcheck=False)
        joined = Records.joined(self._parts)
        return replace(joined, masks=replace(joined.masks, fifths=self._fifths))


ARRAYS = ("ids", "image_ids", "category_ids", "boxes", "areas", "crowd", "difficult")
