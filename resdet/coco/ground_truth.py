"""Ground truth for scoring: a compact, validated copy of a COCO annotation file.

Nothing in it can harm an evaluator: ids are dense and checked, numbers finite, areas and crowd flags present.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Bool, Float64, Int64

from resdet.coco.json_file import read_json, typed
from resdet.coco.masks import ground_truth_mask, mask_areas
from resdet.errors import UserError

LARGEST = 1e7  # pixels: anything beyond is a broken number, and its square would lose the other boxes' digits
EXPECTED = "a COCO annotation file with images, annotations and categories"


class _Image(msgspec.Struct, gc=False):
    id: int
    file_name: str | None = None
    height: int | None = None
    width: int | None = None


class _Category(msgspec.Struct, gc=False):
    id: int
    name: str | None = None


class _Annotation(msgspec.Struct, gc=False):
    id: int
    image_id: int
    category_id: int
    bbox: list[float]
    area: float | None = None
    iscrowd: bool | int | None = None
    ignore: bool | int | None = None
    difficult: bool | int | None = None
    segmentation: Any = None


class _File(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


@dataclass(frozen=True)
class GroundTruth:
    """I images, K categories, A annotations, in the order of the file.

    `image` and `label` are positions in `image_ids` and `category_ids`, which are sorted; `boxes` are (x, y, width,
    height) in pixels of the original image; `difficult` objects (annotation field `difficult` or `ignore`) are
    left out of VOC figures and, as in pycocotools, nowhere else. `filled` counts the values the file left out.
    """

    source: str
    image_ids: Int64[np.ndarray, " I"]
    file_names: tuple[str, ...]  # empty where the file has none
    sizes: Int64[np.ndarray, "I 2"]  # (height, width); zeros where the file has none
    category_ids: Int64[np.ndarray, " K"]
    class_names: tuple[str, ...]
    annotation_ids: Int64[np.ndarray, " A"]
    image: Int64[np.ndarray, " A"]
    label: Int64[np.ndarray, " A"]
    boxes: Float64[np.ndarray, "A 4"]
    areas: Float64[np.ndarray, " A"]
    crowd: Bool[np.ndarray, " A"]
    difficult: Bool[np.ndarray, " A"]
    segmentations: tuple[Any, ...]
    filled: dict[str, int]

    def notes(self) -> list[str]:
        """One line for each kind of value the file left out."""
        reasons = {"area": "taken from the mask, else from the box", "iscrowd": "taken as 0"}
        return [
            f"{self.source}: {count} of {len(self.image)} annotations without {field}: {reasons[field]}"
            for field, count in self.filled.items()
        ]

    def where(self, index: int) -> str:
        """Names annotation `index` in a message."""
        image_id = self.image_ids[self.image[index]]
        return f"{self.source}: annotation {self.annotation_ids[index]} (image_id {image_id})"


def read_ground_truth(path: str | Path) -> GroundTruth:
    """The annotations of a COCO json file. Raises UserError naming the entry for anything that cannot be scored."""
    return _ground_truth(read_json(path, _File, expected=EXPECTED), str(path))


def ground_truth_from_dict(data: dict[str, Any], *, source: str = "ground truth") -> GroundTruth:
    """The same from the parsed content of such a file; `data` is left as it is."""
    return _ground_truth(typed(data, _File, source=source, expected=EXPECTED), source)


def _ground_truth(file: _File, source: str) -> GroundTruth:
    image_ids = _sorted_ids([image.id for image in file.images], "image", source)
    category_ids = _sorted_ids([category.id for category in file.categories], "category", source)
    annotations = file.annotations

    def where(index: int) -> str:
        return f"{source}: annotation {annotations[index].id} (image_id {annotations[index].image_id})"

    image = _positions([a.image_id for a in annotations], image_ids, "image_id", "images", where)
    label = _positions([a.category_id for a in annotations], category_ids, "category_id", "categories", where)
    boxes = box_array([a.bbox for a in annotations], where)
    file_names = {image.id: image.file_name or "" for image in file.images}
    sizes = {image.id: (image.height or 0, image.width or 0) for image in file.images}
    size_array = int_array([sizes[int(i)] for i in image_ids], source).reshape(-1, 2)
    filled = Counter({"iscrowd": sum(a.iscrowd is None for a in annotations), "area": 0})
    areas = np.array([0.0 if a.area is None else a.area for a in annotations], dtype=np.float64)
    for index in (i for i, a in enumerate(annotations) if a.area is None):
        height, width = size_array[image[index]].tolist()
        areas[index] = _area(annotations[index], boxes[index], height, width, where(index))
        filled["area"] += 1
    refuse_first(~((areas >= 0) & (areas <= LARGEST**2)), areas, where, "area", "a finite number of pixels, 0 or more")
    return GroundTruth(
        source=source,
        image_ids=image_ids,
        file_names=tuple(file_names[image_id] for image_id in image_ids.tolist()),
        sizes=size_array,
        category_ids=category_ids,
        class_names=_class_names(file.categories, category_ids),
        annotation_ids=int_array([a.id for a in annotations], source),
        image=image,
        label=label,
        boxes=boxes,
        areas=areas,
        crowd=np.array([bool(a.iscrowd) for a in annotations], dtype=bool),
        difficult=np.array([bool(a.difficult or a.ignore) for a in annotations], dtype=bool),
        segmentations=tuple(a.segmentation for a in annotations),
        filled={name: count for name, count in filled.items() if count},
    )


def _area(annotation: _Annotation, box: np.ndarray, height: int, width: int, where: str) -> float:
    """COCO's area is the mask's; without a mask the box has to do."""
    if annotation.segmentation and height and width:
        mask = ground_truth_mask(annotation.segmentation, height, width, where)
        if mask is not None:
            return float(mask_areas([mask])[0])
    return float(box[2] * box[3])


def _sorted_ids(ids: list[int], noun: str, source: str) -> Int64[np.ndarray, " n"]:
    if not ids:
        raise UserError(f"{source}: holds no {noun}, nothing can be scored; expected {EXPECTED}")
    values, counts = np.unique(int_array(ids, source), return_counts=True)
    if counts.max() > 1:
        raise UserError(
            f"{source}: {noun} ids {values[counts > 1][:5].tolist()} occur more than once; make them unique"
        )
    return values


def _class_names(categories: list[_Category], category_ids: np.ndarray) -> tuple[str, ...]:
    """Names in the order of the ids; the id joins where a name is missing or used twice (it is a metric's name)."""
    # Half a surrogate pair, which JSON can spell, could not be written or printed.
    names = {c.id: (c.name or "").encode("utf-8", "replace").decode() for c in categories}
    uses = Counter(names.values())
    ordered = [(int(i), names[int(i)]) for i in category_ids]
    return tuple(name if name and uses[name] == 1 else f"{name or 'category'} (id {i})" for i, name in ordered)


def _positions(
    ids: list[int], known: Int64[np.ndarray, " k"], field: str, table: str, where: Callable[[int], str]
) -> Int64[np.ndarray, " n"]:
    positions, found = find_ids(int_array(ids, table), known)
    if not found.all():
        index = int(np.argmin(found))
        raise UserError(f"{where(index)}: {field} {ids[index]} is not among the file's {table}")
    return positions


def find_ids(
    ids: Int64[np.ndarray, " n"], known: Int64[np.ndarray, " k"]
) -> tuple[Int64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """The position of each id in the sorted `known`, and whether it is there."""
    positions = np.minimum(np.searchsorted(known, ids), len(known) - 1).astype(np.int64)
    return positions, known[positions] == ids


def int_array(values: Sequence[Any], source: str) -> Int64[np.ndarray, "..."]:
    try:
        return np.array(values, dtype=np.int64)
    except OverflowError:
        raise UserError(f"{source}: an id or size lies outside 64-bit integers") from None


def box_array(boxes: Sequence[Sequence[float]], where: Callable[[int], str]) -> Float64[np.ndarray, "n 4"]:
    """(x, y, width, height) rows, finite and of no negative size; zero-sized boxes pass, as in pycocotools."""
    lengths = np.fromiter(map(len, boxes), dtype=np.int64, count=len(boxes))
    if (lengths != 4).any():
        index = int(np.argmax(lengths != 4))
        raise UserError(
            f"{where(index)}: bbox {boxes[index]} has {lengths[index]} numbers; expected [x, y, width, height]"
        )
    array = np.fromiter(chain.from_iterable(boxes), dtype=np.float64, count=4 * len(boxes)).reshape(-1, 4)
    check_boxes(array, where)
    return array


def check_boxes(boxes: Float64[np.ndarray, "n 4"], where: Callable[[int], str]) -> None:
    finite = np.all(np.abs(boxes) <= LARGEST, axis=1)
    refuse_first(np.logical_not(finite), boxes, where, "bbox", "finite numbers of pixels")
    negative = np.minimum(boxes[:, 2], boxes[:, 3]) < 0
    refuse_first(negative, boxes, where, "bbox", "[x, y, width, height] of no negative size")


def refuse_first(
    bad: Bool[np.ndarray, " n"], values: np.ndarray, where: Callable[[int], str], field: str, expected: str
) -> None:
    """Raises UserError for the first entry that is bad, and says how many there are."""
    if not bad.any():
        return
    index = int(np.argmax(bad))
    more = f" ({int(bad.sum())} such entries)" if bad.sum() > 1 else ""
    raise UserError(f"{where(index)}: {field} is {values[index].tolist()}; expected {expected}{more}")
