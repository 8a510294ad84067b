"""Reads annotation files of any format as one data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from resdet.data.sets.coco import CocoDataset, read_coco
from resdet.data.sets.voc import annotation_file, conversion_notes


def read_set(
    annotations: Path, images: Path, *, require_objects: bool = False, max_missing_fraction: float = 0.0
) -> CocoDataset:
    """The data set of a COCO json file, or of a VOC split's list (.txt), with the corrections of its conversion in the
    report.

    The other arguments and the errors are the same as for `read_coco`.
    """
    file = annotation_file(annotations, images)
    dataset = read_coco(file, images, require_objects=require_objects, max_missing_fraction=max_missing_fraction)
    report = replace(dataset.report, fixed=dataset.report.fixed | conversion_notes(file))
    return replace(dataset, report=report)
