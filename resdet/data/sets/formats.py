"""Annotation files of any format as one data set: a literal table of formats, one row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from resdet.coco.reader import Annotations, read_annotations
from resdet.data.sets import ilsvrc_boxes
from resdet.data.sets.coco import CocoDataset, dataset_of
from resdet.data.sets.voc import annotation_file, conversion_notes


class Format(NamedTuple):
    """`recognizes` a path by its name; `read` has the path and the folder of images, None where only scores count.

    `read` gives the content as `resdet.coco.reader` checks it (`annotations_from_dict`, from a COCO file's content),
    and raises UserError naming the file, the entry and a remedy.
    """

    recognizes: Callable[[Path], bool]
    read: Callable[[Path, Path | None], Annotations]


def _any(path: Path) -> bool:
    return True


def _is_list(path: Path) -> bool:
    return path.suffix == ".txt"


def _read_coco(path: Path, images: Path | None) -> Annotations:
    return _with_notes(path)


def _read_voc(path: Path, images: Path | None) -> Annotations:
    return _with_notes(annotation_file(path, images))


def _read_ilsvrc(path: Path, images: Path | None) -> Annotations:
    return _with_notes(ilsvrc_boxes.annotation_file(path, images))


def _with_notes(file: Path) -> Annotations:
    """A COCO json file; of one that was converted from VOC also what the conversion mended."""
    content = read_annotations(file)
    return replace(content, mended=content.mended | conversion_notes(file))


# The last row that recognizes a file reads it, so that a row which is added comes before these.
FORMATS = {
    "coco": Format(_any, _read_coco),
    "voc": Format(_is_list, _read_voc),
    "ilsvrc": Format(ilsvrc_boxes.is_list, _read_ilsvrc),
}


def read_content(annotations: Path, images: Path | None = None) -> Annotations:
    """What a file of any format says. Raises UserError for anything in it that cannot be meant."""
    chosen = [row for row in FORMATS.values() if row.recognizes(annotations)][-1]
    return chosen.read(annotations, images)


def read_set(
    annotations: Path, images: Path, *, require_objects: bool = False, max_missing_fraction: float = 0.0
) -> CocoDataset:
    """The data set of a file of any format. The other arguments, and the errors, are those of `dataset_of`."""
    content = read_content(annotations, images)
    return dataset_of(content, images, require_objects=require_objects, max_missing_fraction=max_missing_fraction)
