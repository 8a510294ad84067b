"""Keeps, drops or rations the training images that have no object."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from resdet.data.sets.coco import CocoDataset
from resdet.data.sets.held_out import position


def keep_empty(dataset: CocoDataset, share: float, seed: int) -> CocoDataset:
    """The data set with this share of its images without annotations: those whose names have the lowest positions
    (`held_out.position`), rounded. The report counts what was dropped.
    """
    empty = np.flatnonzero(np.diff(dataset.offsets) == 0)
    count = round(share * len(empty))
    if count == len(empty):
        return dataset
    places = [position(dataset.file_names[index], seed) for index in empty.tolist()]
    dropped = empty[np.argsort(places, kind="stable")[count:]]
    remark = f"dropped {len(dropped)} of {len(empty)} images without objects (data.empty_images={share:g})"
    report = replace(dataset.report, remarks=[*dataset.report.remarks, remark])
    kept = np.setdiff1d(np.arange(len(dataset)), dropped)
    return replace(dataset.take(kept), report=report)
