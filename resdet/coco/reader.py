"""The only reader of annotation files: every annotation receives a verdict before it is used for training or scoring.

    ok        kept unchanged
    mended    kept with one value corrected, and counted
    skipped   contains no object: not used for training, not to be found, and counted
    refused   certainly wrong: UserError before the first step

A mask can be removed while its annotation is kept with its box; this is counted too. docs/data.md contains the table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from resdet.coco import segmentation
from resdet.coco.annotation_file import AnnotationFile, annotation_file_from_dict, read_annotation_file
from resdet.coco.checks import LARGEST, find_ids
from resdet.coco.class_names import class_names
from resdet.coco.convention import check_convention
from resdet.coco.federated import Federated, federated_of, remarks_on
from resdet.coco.mask_verdicts import CUT, Images, mask_verdicts
from resdet.coco.packed_strings import PackedStrings
from resdet.coco.records import Records
from resdet.coco.report import Note
from resdet.coco.segmentation import Segmentations
from resdet.errors import UserError
from resdet.text import first_few

SMALLEST = 0.01  # pixels: a box with a shorter side contains no object
MOST_PIXELS = 2**30  # run lengths are 32-bit numbers in the evaluators

NO_IMAGE = "image_id of no image"
NO_AREA = "box without area"
OUTSIDE = "box outside its image"
CLIPPED = "box clipped to its image"
AREA = "area missing or negative, taken from the mask or else the box"
CONVERTED = "number written as text or with a point, read as a number"
RENAMED = "class name without blanks at its ends, or told apart by its category id"


@dataclass(frozen=True)
class Annotations:
    """The content of one file: I images in its order, K classes by ascending category id, P annotations.

    The first `kept` annotations are grouped by image, and within an image in the file's order. The skipped annotations
    that have an image follow. The `boxes` of kept annotations lie in their image and have an area; `given` are the
    boxes in the file. A height or width of 0, or an empty file name, means that the file does not give it.
    """

    source: str
    image_ids: Int64[np.ndarray, " I"]
    file_names: PackedStrings
    heights: Int64[np.ndarray, " I"]
    widths: Int64[np.ndarray, " I"]
    category_ids: Int64[np.ndarray, " K"]
    class_names: tuple[str, ...]

    kept: int
    ids: Int64[np.ndarray, " P"]
    image_index: Int64[np.ndarray, " P"]
    labels: Int64[np.ndarray, " P"]
    boxes: Float64[np.ndarray, "P 4"]  # x1, y1, x2, y2
    given: Float64[np.ndarray, "P 4"]  # x, y, width, height
    clipped: Bool[np.ndarray, " P"]
    areas: Float64[np.ndarray, " P"]
    crowd: Bool[np.ndarray, " P"]
    difficult: Bool[np.ndarray, " P"]
    masks: Segmentations

    read: int  # annotations in the file
    without_crowd_flag: int  # of these, the number that was read as 0
    skipped: dict[str, Note]
    skipped_masks: dict[str, Note]
    mended: dict[str, Note]
    federated: Federated | None = None
    remarks: tuple[str, ...] = ()  # lines for the user about the choice of images and classes
    unreadable: dict[str, str] = field(default_factory=dict)  # image files that a conversion left out, with the reason


def read_annotations(path: Path) -> Annotations:
    """Raises UserError that names the file, the entry, its value and a remedy for an annotation that is certainly
    wrong.
    """
    return checked(read_annotation_file(path))


def annotations_from_dict(data: dict[str, Any], *, source: str = "ground truth") -> Annotations:
    """The same for the parsed content of such a file; `data` is not changed."""
    return checked(annotation_file_from_dict(data, source=source))


def checked(file: AnnotationFile) -> Annotations:
    """All annotations of a parsed file with their verdicts."""
    source, records = file.source, file.annotations
    image_ids, heights, widths = _images(file)
    category_ids, names, renamed = _categories(file)
    federated = federated_of(file, category_ids)
    rows = _Rows(source, file.annotations)
    labels, known = find_ids(rows.category_ids, category_ids)
    listed = f"not in the file's categories ({first_few(category_ids.tolist())})"
    rows.require(known, "category_id", rows.category_ids, listed)
    image, has_image = find_ids(rows.image_ids, image_ids)
    given = rows.boxes()
    sized = has_image & (heights[image] > 0)
    images = Images(np.where(sized, heights[image], 0), np.where(sized, widths[image], 0))
    check_convention(source, given[sized], images.heights[sized], images.widths[sized])
    boxes, clipped, inside = _clip(given, images)
    positive = np.all(given[:, 2:] >= SMALLEST, axis=1)
    keep, skipped = _skip(rows.ids, {NO_IMAGE: ~has_image, NO_AREA: ~positive, OUTSIDE: ~inside})

    kept = np.flatnonzero(keep)
    kept = kept[np.argsort(image[kept], kind="stable")]  # within an image, in the file's order
    order = np.concatenate((kept, np.flatnonzero(~keep & has_image)))
    found = mask_verdicts(records.masks, boxes, images, keep, rows.refuse_mask)
    position = np.full(len(records), -1)
    position[kept] = np.arange(len(kept))

    def kept_ids(which: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " _"]:
        """The ids of those of the rows that are kept, in the order of the result."""
        return rows.ids[kept[np.sort(position[which][position[which] >= 0])]]

    masks = found.masks.take_but(order, found.dropped)
    ids, image, boxes, given = rows.ids[order], image[order], boxes[order], given[order]
    areas, without_area = _areas(rows.areas()[order], boxes, masks, heights[image], widths[image])
    mended = {
        CLIPPED: ids[: len(kept)][clipped[kept]],
        CUT: kept_ids(found.clipped),
        AREA: ids[: len(kept)][without_area[: len(kept)]],
        CONVERTED: np.array(file.converted, np.int64),
        RENAMED: renamed,
    }
    return Annotations(
        source=source,
        image_ids=image_ids,
        file_names=PackedStrings.of(image.file_name or "" for image in file.images),
        heights=heights,
        widths=widths,
        category_ids=category_ids,
        class_names=names,
        kept=len(kept),
        ids=ids,
        image_index=image,
        labels=labels[order],
        boxes=boxes,
        given=given,
        clipped=clipped[order],
        areas=areas,
        crowd=rows.crowd()[order],
        difficult=records.difficult[order],
        masks=masks,
        read=len(records) + sum(note.count for note in file.skipped.values()),
        without_crowd_flag=int(np.isnan(records.crowd).sum()),
        skipped=file.skipped | skipped,
        skipped_masks=_notes({reason: kept_ids(which) for reason, which in found.skipped.items()}),
        mended=_notes(mended) | file.mended,
        federated=federated,
        remarks=(*file.remarks, *remarks_on(federated)),
        unreadable=file.unreadable,
    )


def _images(file: AnnotationFile) -> tuple[Int64[np.ndarray, " I"], Int64[np.ndarray, " I"], Int64[np.ndarray, " I"]]:
    """Ids, heights and widths in the file's order; a size that is not given is 0."""
    if not file.images:
        raise UserError(f"{file.source}: the list 'images' is empty; there is nothing to read")
    ids = np.fromiter((image.id for image in file.images), np.int64, len(file.images))
    if repeated := _repeated(ids):
        raise UserError(f"{file.source}: duplicate image ids: {first_few(repeated)}; give every image its own id")
    for image in file.images:
        height, width = image.height, image.width
        if (
            (height is not None and height < 1)
            or (width is not None and width < 1)
            or (height is not None and width is not None and height * width > MOST_PIXELS)
        ):
            raise UserError(
                f"{file.source}: image id {image.id}: height {height}, width {width}; "
                f"must be at least 1 pixel each and at most {MOST_PIXELS} together; correct it"
            )
    sizes = [(i.height, i.width) if i.height and i.width else (0, 0) for i in file.images]
    heights, widths = np.array(sizes, np.int64).reshape(-1, 2).T.copy()
    return ids, heights, widths


def _categories(file: AnnotationFile) -> tuple[Int64[np.ndarray, " K"], tuple[str, ...], Int64[np.ndarray, " _"]]:
    """Ids in ascending order, their names, and the ids of the categories whose name differs from the file's."""
    if not file.categories:
        raise UserError(f"{file.source}: the list 'categories' is empty; list every class with an id and a name")
    ids = np.array([category.id for category in file.categories], np.int64)
    if repeated := _repeated(ids):
        raise UserError(f"{file.source}: duplicate category ids: {first_few(repeated)}; each class needs its own id")
    ordered = sorted(file.categories, key=lambda category: category.id)
    names = class_names([c.id for c in ordered], [c.name for c in ordered], file.source)
    changed = [c.id for c, name in zip(ordered, names, strict=True) if c.name != name]
    return np.sort(ids), names, np.array(changed, np.int64)


class _Rows:
    """The columns of the annotations; each column is checked when it is read."""

    def __init__(self, source: str, records: Records) -> None:
        self.source, self.records = source, records
        self.ids, self.image_ids, self.category_ids = records.ids, records.image_ids, records.category_ids
        if repeated := _repeated(self.ids):
            raise UserError(f"{source}: duplicate annotation ids: {first_few(repeated)}; give each its own id")

    def boxes(self) -> Float64[np.ndarray, "A 4"]:
        """The boxes in the file: x, y, width, height."""
        boxes = self.records.boxes
        self.require(np.all(np.abs(boxes) <= LARGEST, axis=1), "bbox", boxes, "no pixel coordinates")
        return boxes

    def areas(self) -> Float64[np.ndarray, " A"]:
        """NaN for a missing, null or negative area."""
        given = self.records.areas
        self.require(np.isnan(given) | (np.abs(given) <= LARGEST**2), "area", given, "no area in pixels")
        return np.where(given < 0, np.nan, given)

    def crowd(self) -> Bool[np.ndarray, " A"]:
        flags = self.records.crowd
        self.require(np.isnan(flags) | (flags == 0) | (flags == 1), "iscrowd", flags, "must be 0 or 1")
        return flags == 1

    def require(self, holds: Bool[np.ndarray, " A"], name: str, values: np.ndarray, reason: str) -> None:
        """Raises UserError for the first annotation that does not fulfil the condition."""
        if not holds.all():
            row = int(holds.argmin())
            value = values[row].tolist()
            shown = tuple(value) if isinstance(value, list) else int(value) if name == "iscrowd" else value
            raise self._refusal(row, f"field {name!r} {shown}: {reason}", "annotation")

    def refuse_mask(self, row: int, reason: str) -> None:
        raise self._refusal(row, f"field 'segmentation': {reason}", "mask")

    def _refusal(self, row: int, problem: str, culprit: str) -> UserError:
        return UserError(
            f"{self.source}: annotation id {self.ids[row]} (image id {self.image_ids[row]}): {problem}; "
            f"correct or remove that {culprit}"
        )


def _clip(
    xywh: Float64[np.ndarray, "M 4"], images: Images
) -> tuple[Float64[np.ndarray, "M 4"], Bool[np.ndarray, " M"], Bool[np.ndarray, " M"]]:
    """The xyxy boxes clipped to their images, and two masks: boxes that exceeded the image by more than rounding, and
    boxes that lie at least partly in it.

    A box is not clipped if the size of its image is unknown (0).
    """
    corners = np.concatenate((xywh[:, :2], xywh[:, :2] + xywh[:, 2:]), axis=1)
    sides = (images.widths, images.heights)
    limits = np.stack((*sides, *sides), axis=1).astype(np.float64)
    boxes = np.where(limits > 0, np.clip(corners, 0, limits), corners)
    overhang = np.any(np.abs(boxes - corners) > SMALLEST, axis=1)
    inside = np.all(boxes[:, 2:] - boxes[:, :2] >= SMALLEST / 2, axis=1)
    return boxes, overhang, inside


def _skip(
    ids: Int64[np.ndarray, " M"], reasons: dict[str, Bool[np.ndarray, " M"]]
) -> tuple[Bool[np.ndarray, " M"], dict[str, Note]]:
    """Each annotation is counted under the first reason that applies."""
    keep = np.ones(len(ids), bool)
    skipped: dict[str, Int64[np.ndarray, " _"]] = {}
    for reason, holds in reasons.items():
        skipped[reason] = ids[keep & holds]
        keep &= ~holds
    return keep, _notes(skipped)


def _areas(
    areas: Float64[np.ndarray, " P"],
    boxes: Float64[np.ndarray, "P 4"],
    masks: Segmentations,
    heights: Int64[np.ndarray, " P"],
    widths: Int64[np.ndarray, " P"],
) -> tuple[Float64[np.ndarray, " P"], Bool[np.ndarray, " P"]]:
    """The area is COCO's if given, otherwise the mask's, otherwise the box's. Also returns which areas the file does
    not give.
    """
    missing = np.isnan(areas)
    from_boxes = np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1)
    areas = np.where(missing, from_boxes, areas)
    for row in np.flatnonzero(missing & masks.present()).tolist():
        areas[row] = segmentation.coco_mask.area(masks.encoded(row, int(heights[row]), int(widths[row])))
    return areas, missing


def _notes(ids: dict[str, Int64[np.ndarray, " _"]]) -> dict[str, Note]:
    return {reason: Note.of(which) for reason, which in ids.items() if len(which)}


def _repeated(ids: Int64[np.ndarray, " n"]) -> list[int]:
    unique, counts = np.unique(ids, return_counts=True)
    return unique[counts > 1].tolist()
