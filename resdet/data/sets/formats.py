"""Annotation files of any format as one data set: a literal table of formats, one row each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from resdet.coco.annotation_file import AnnotationFile
from resdet.coco.reader import Annotations, checked
from resdet.coco.selection import with_remark
from resdet.data.sets import csv_table, ilsvrc_boxes
from resdet.data.sets.cache import read_converted
from resdet.data.sets.coco import CocoDataset, dataset_of
from resdet.data.sets.voc import annotation_file
from resdet.errors import UserError


class Format(NamedTuple):
    """`recognizes` a path by its name; `read` has the path and the folder of images, None where only scores count.

    `read` gives the records of a COCO file (`resdet.coco.annotation_file.annotation_file_from_dict` makes them of its
    content), and raises UserError naming the file, the entry and a remedy.
    """

    recognizes: Callable[[Path], bool]
    read: Callable[[Path, Path | None], AnnotationFile]


def _any(path: Path) -> bool:
    return True


def _is_list(path: Path) -> bool:
    return path.suffix == ".txt"


def _is_table(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _read_coco(path: Path, images: Path | None) -> AnnotationFile:
    return read_converted(path)


def _read_voc(path: Path, images: Path | None) -> AnnotationFile:
    return read_converted(annotation_file(path, images))


def _read_ilsvrc(path: Path, images: Path | None) -> AnnotationFile:
    return read_converted(ilsvrc_boxes.annotation_file(path, images))


def _read_csv(path: Path, images: Path | None) -> AnnotationFile:
    return read_converted(csv_table.annotation_file([path], images or path.absolute().parent))


# The last row that recognizes a file reads it, so that a row which is added comes before these.
FORMATS = {
    "coco": Format(_any, _read_coco),
    "voc": Format(_is_list, _read_voc),
    "ilsvrc": Format(ilsvrc_boxes.is_list, _read_ilsvrc),
    "csv": Format(_is_table, _read_csv),
}


def read_records(annotations: Path, images: Path | None = None) -> AnnotationFile:
    """The records of a file of any format. Raises UserError for a file that is of another form."""
    chosen = [row for row in FORMATS.values() if row.recognizes(annotations)][-1]
    return chosen.read(annotations, images)


def read_content(annotations: Path, images: Path | None = None) -> Annotations:
    """What a file of any format says. Raises UserError for anything in it that cannot be meant."""
    return checked(read_records(annotations, images))


def read_set(
    annotations: Path, images: Path, *, require_objects: bool = False, max_missing_fraction: float = 0.0
) -> CocoDataset:
    """The data set of a file of any format. The other arguments, and the errors, are those of `dataset_of`."""
    records = read_records(annotations, images)
    return set_of(records, images, require_objects=require_objects, max_missing_fraction=max_missing_fraction)


def set_of(
    records: AnnotationFile, images: Path, *, require_objects: bool = False, max_missing_fraction: float = 0.0
) -> CocoDataset:
    """The data set of such records. Image files that a conversion could not read count as missing ones."""
    check_unreadable(records, max_missing_fraction)
    if records.unreadable:
        first = next(iter(records.unreadable))
        remark = f"{len(records.unreadable)} image files that cannot be read are left out (first: {first[:200]!r})"
        records = with_remark(records, remark)
    content = checked(records)
    return dataset_of(content, images, require_objects=require_objects, max_missing_fraction=max_missing_fraction)


def check_unreadable(records: AnnotationFile, max_missing_fraction: float) -> None:
    """Raises UserError if more image files than permitted cannot be read and were left out."""
    count, reasons = len(records.images) + len(records.unreadable), list(records.unreadable.values())
    if len(reasons) > max_missing_fraction * count:
        more = f" ({len(reasons)} such images of {count})" if len(reasons) > 1 else ""
        raise UserError(f"{reasons[0]}{more}; or allow some with data.on_bad_image=skip")
