"""What an annotation file must satisfy before anything is trained on it.

Three verdicts: an error (UserError) for what cannot be meant, a counted skip for an annotation that holds no object,
a counted fix for a slip. Every annotation read is either kept or skipped under exactly one reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from jaxtyping import Bool, Float64, Int64

from resdet.coco.annotation_file import AnnotationFile
from resdet.coco.convention import FEWEST, LOOKS_LIKE_CORNERS, boxes_like_corners
from resdet.coco.image_files import MAX_PIXELS, MAX_SIDE, check_file_name, missing_files
from resdet.coco.report import EXAMPLES, Note
from resdet.errors import UserError
from resdet.text import first_few

SMALLEST = 0.01  # pixels: a box with a shorter side holds nothing
LARGEST = 1e6  # pixels: beyond this a number is no coordinate


@dataclass(frozen=True)
class Objects:
    """The annotations that are kept (M of them, grouped by image) and notes on the others."""

    file: AnnotationFile
    rows: Int64[np.ndarray, " M"]  # in file.annotations
    ids: Int64[np.ndarray, " M"]
    image_index: Int64[np.ndarray, " M"]
    labels: Int64[np.ndarray, " M"]
    boxes: Float64[np.ndarray, "M 4"]  # xyxy
    crowd: Bool[np.ndarray, " M"]
    difficult: Bool[np.ndarray, " M"]
    areas: Float64[np.ndarray, " M"]
    heights: Int64[np.ndarray, " M"]  # of the image each lies in
    widths: Int64[np.ndarray, " M"]
    skipped: dict[str, Note]
    fixed: dict[str, Note]

    def refuse_mask(self, index: int, reason: str) -> NoReturn:
        raise _refusal(self.file, int(self.rows[index]), "segmentation", reason, "correct or remove the mask")


def categories(file: AnnotationFile) -> tuple[Int64[np.ndarray, " K"], tuple[str, ...]]:
    """Category ids in ascending order and their names; two that share a name get their ids appended."""
    if not file.categories:
        raise UserError(f"{file.path}: the list 'categories' is empty; list every class with an id and a name")
    ids = np.array([category.id for category in file.categories], np.int64)
    if repeated := _repeated(ids):
        raise UserError(f"{file.path}: duplicate category ids: {first_few(repeated)}; each class needs its own id")
    names = [category.name for category in file.categories]
    unique = [
        f"{name} ({category_id})" if names.count(name) > 1 else name
        for name, category_id in zip(names, ids.tolist(), strict=True)
    ]
    order = np.argsort(ids)
    return ids[order], tuple(unique[index] for index in order)


def images(file: AnnotationFile) -> Int64[np.ndarray, " N"]:
    """Image ids in the file's order; sizes and names are checked here, files on disk by `image_files`."""
    if not file.images:
        raise UserError(f"{file.path}: the list 'images' is empty; there is nothing to read")
    ids = np.fromiter((image.id for image in file.images), np.int64, len(file.images))
    if repeated := _repeated(ids):
        raise UserError(f"{file.path}: duplicate image ids: {first_few(repeated)}; give every image its own id")
    for image in file.images:
        height, width = image.height, image.width
        if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE and height * width <= MAX_PIXELS):
            raise UserError(
                f"{file.path}: image id {image.id} ({image.file_name[:200]!r}): height {height}, width {width}; "
                f"must be 1 to {MAX_SIDE} pixels each and at most {MAX_PIXELS} together; correct or downscale it"
            )
        check_file_name(image.file_name, f"{file.path}: image id {image.id}")
    return ids


def image_files(file: AnnotationFile, folder: Path, max_missing_fraction: float) -> list[str]:
    """The names without a file in the folder, where no more are missing than allowed."""
    missing = missing_files(folder, [image.file_name for image in file.images], str(file.path))
    if len(missing) > max_missing_fraction * len(file.images):
        first = ", ".join(repr(name[:200]) for name in missing[:EXAMPLES])
        raise UserError(
            f"{folder}: {len(missing)} of {len(file.images)} image files of {file.path} are missing "
            f"(first: {first}); check the images folder, or allow some with data.on_bad_image=skip"
        )
    return missing


def objects(file: AnnotationFile, image_ids: Int64[np.ndarray, " N"], category_ids: Int64[np.ndarray, " K"]) -> Objects:
    """Checks every annotation's ids, box, area and crowd flag; boxes are clipped to their image."""
    records = file.annotations
    count = len(records)
    ids = np.fromiter((record.id for record in records), np.int64, count)
    if repeated := _repeated(ids):
        raise UserError(f"{file.path}: duplicate annotation ids: {first_few(repeated)}; give each its own id")
    crowd = np.fromiter((record.iscrowd for record in records), np.float64, count)
    _require(file, (crowd == 0) | (crowd == 1), "iscrowd", "must be 0 or 1")
    difficult = np.fromiter((bool(record.difficult) for record in records), bool, count)
    category = np.fromiter((record.category_id for record in records), np.int64, count)
    labels, known = _positions(category_ids, category)
    _require(file, known, "category_id", f"not in the file's categories ({first_few(category_ids.tolist())})")
    image = np.fromiter((record.image_id for record in records), np.int64, count)
    image_index, has_image = _positions(image_ids, image)

    heights = np.fromiter((image.height for image in file.images), np.int64, len(file.images))[image_index]
    widths = np.fromiter((image.width for image in file.images), np.int64, len(file.images))[image_index]
    xywh = np.array([record.bbox for record in records], np.float64).reshape(-1, 4)
    _require(file, np.all(np.abs(xywh) < LARGEST, axis=1), "bbox", "no pixel coordinates")
    _check_convention(file, xywh[has_image], heights[has_image], widths[has_image])
    boxes, overhang, inside = _clip(xywh, heights, widths)
    positive = np.all(xywh[:, 2:] >= SMALLEST, axis=1)
    areas, recomputed = _areas(file, boxes)

    keep, skipped = _skip(
        ids,
        {
            "image_id of no image": ~has_image,
            "box without area": ~positive,
            "box outside its image": ~inside,
        },
    )
    fixed = {
        "box clipped to its image": Note.of(ids[keep & overhang]),
        "area missing or negative, taken from the box": Note.of(ids[keep & recomputed]),
    }
    rows = np.flatnonzero(keep)
    rows = rows[np.argsort(image_index[rows], kind="stable")]  # within an image, the file's order
    return Objects(
        file=file,
        rows=rows,
        ids=ids[rows],
        image_index=image_index[rows],
        labels=labels[rows],
        boxes=boxes[rows],
        crowd=crowd[rows] == 1,
        difficult=difficult[rows],
        areas=areas[rows],
        heights=heights[rows],
        widths=widths[rows],
        skipped=skipped,
        fixed={reason: note for reason, note in fixed.items() if note.count},
    )


def _check_convention(
    file: AnnotationFile,
    xywh: Float64[np.ndarray, "M 4"],
    heights: Int64[np.ndarray, " M"],
    widths: Int64[np.ndarray, " M"],
) -> None:
    """Boxes written as x1, y1, x2, y2 or in fractions give themselves away when they are many."""
    if len(xywh) < FEWEST:
        return
    if count := boxes_like_corners(xywh, heights, widths):
        raise UserError(f"{file.path}: {count} of {len(xywh)} {LOOKS_LIKE_CORNERS}")
    if (xywh <= 1).all() and (xywh[:, 2:] > 0).any():
        raise UserError(
            f"{file.path}: all boxes lie within one pixel: field 'bbox' looks like fractions of the image; "
            "multiply by width and height, COCO wants pixels"
        )


def _clip(
    xywh: Float64[np.ndarray, "M 4"], heights: Int64[np.ndarray, " M"], widths: Int64[np.ndarray, " M"]
) -> tuple[Float64[np.ndarray, "M 4"], Bool[np.ndarray, " M"], Bool[np.ndarray, " M"]]:
    """xyxy boxes inside their image; which ones hung over by more than rounding; which ones lie in it at all."""
    corners = np.concatenate((xywh[:, :2], xywh[:, :2] + xywh[:, 2:]), axis=1)
    limits = np.stack((widths, heights, widths, heights), axis=1).astype(np.float64)
    boxes = np.clip(corners, 0, limits)
    overhang = np.any(np.abs(boxes - corners) > SMALLEST, axis=1)
    inside = np.all(boxes[:, 2:] - boxes[:, :2] >= SMALLEST / 2, axis=1)
    return boxes, overhang, inside


def _areas(
    file: AnnotationFile, boxes: Float64[np.ndarray, "M 4"]
) -> tuple[Float64[np.ndarray, " M"], Bool[np.ndarray, " M"]]:
    given = [-1.0 if record.area is None else record.area for record in file.annotations]
    areas = np.array(given, np.float64)
    _require(file, np.abs(areas) < LARGEST**2, "area", "no area in pixels")
    missing = areas < 0
    return np.where(missing, (boxes[:, 2:] - boxes[:, :2]).prod(axis=1), areas), missing


def _skip(
    ids: Int64[np.ndarray, " M"], reasons: dict[str, Bool[np.ndarray, " M"]]
) -> tuple[Bool[np.ndarray, " M"], dict[str, Note]]:
    """Each annotation counts under the first reason that holds."""
    keep = np.ones(len(ids), bool)
    notes: dict[str, Note] = {}
    for reason, holds in reasons.items():
        if (keep & holds).any():
            notes[reason] = Note.of(ids[keep & holds])
        keep &= ~holds
    return keep, notes


def _repeated(ids: Int64[np.ndarray, " n"]) -> list[int]:
    unique, counts = np.unique(ids, return_counts=True)
    return unique[counts > 1].tolist()


def _positions(
    known: Int64[np.ndarray, " n"], wanted: Int64[np.ndarray, " m"]
) -> tuple[Int64[np.ndarray, " m"], Bool[np.ndarray, " m"]]:
    """Where each wanted id stands among the known, and whether it does (position 0 where it does not)."""
    order = np.argsort(known)
    nearest = order[np.searchsorted(known, wanted, sorter=order).clip(max=len(known) - 1)]
    found = known[nearest] == wanted
    return np.where(found, nearest, 0), found


def _require(file: AnnotationFile, holds: Bool[np.ndarray, " M"], name: str, reason: str) -> None:
    if not holds.all():
        raise _refusal(file, int(holds.argmin()), name, reason, "correct or remove that annotation")


def _refusal(file: AnnotationFile, row: int, name: str, reason: str, remedy: str) -> UserError:
    record = file.annotations[row]
    value = "" if name == "segmentation" else f" {getattr(record, name)}"
    return UserError(
        f"{file.path}: annotation id {record.id} (image id {record.image_id}): "
        f"field {name!r}{value}: {reason}; {remedy}"
    )
