"""Annotation files of any format as one data set: a literal table of formats, one row each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from resdet.coco.annotation_file import AnnotationFile
from resdet.coco.reader import Annotations
from resdet.config import DataConfig
from resdet.data.sets import csv_table, ilsvrc_boxes
from resdet.data.sets.cache import read_converted
from resdet.data.sets.coco import CocoDataset
from resdet.data.sets.sources import Source, content_of_sources, set_of
from resdet.data.sets.voc import annotation_file


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


COCO = "coco"
# The last row that recognizes a file reads it, so that a row which is added comes before these.
FORMATS = {
    COCO: Format(_any, _read_coco),
    "voc": Format(_is_list, _read_voc),
    "ilsvrc": Format(ilsvrc_boxes.is_list, _read_ilsvrc),
    "csv": Format(_is_table, _read_csv),
}


def format_of(annotations: Path) -> tuple[str, Format]:
    """The name and the row of the format of a file."""
    return [(name, row) for name, row in FORMATS.items() if row.recognizes(annotations)][-1]


def read_records(annotations: Path, images: Path | None = None) -> AnnotationFile:
    """The records of a file of any format. Raises UserError for a file that is of another form."""
    return format_of(annotations)[1].read(annotations, images)


def file_source(annotations: Path, images: Path | None) -> Source:
    """A file of any format as the source of a data set; without a folder of images only scores count."""
    name, row = format_of(annotations)
    folder = annotations.absolute().parent if images is None else images
    return Source(annotations, folder, partial(row.read, annotations, images), indexed=name == COCO)


def read_content(annotations: Path, images: Path | None = None) -> Annotations:
    """What a file of any format says. Raises UserError for anything in it that cannot be meant."""
    return content_of_sources([file_source(annotations, images)], DataConfig())[0]


def read_set(
    annotations: Path, images: Path, *, require_objects: bool = False, max_missing_fraction: float = 0.0
) -> CocoDataset:
    """The data set of a file of any format. The other arguments, and the errors, are those of `dataset_of`."""
    content = read_content(annotations, images)
    return set_of(content, images, require_objects=require_objects, max_missing_fraction=max_missing_fraction)
