"""Objects that are too small after the resize: one rule, the same for every epoch and flip, and a count."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float32, Float64

from resdet.coco.report import Note
from resdet.config import AugmentConfig
from resdet.data.images.decode import resized_size
from resdet.data.sets.coco import CocoDataset
from resdet.errors import UserError

SMALLEST_SIDE = 1.0  # pixels of the resized image
ROUNDING = 2**-9  # pixels: corners are float32, up to 2**14 pixels


def large_enough(
    boxes: Float32[np.ndarray, "n 4"], scale: Float64[np.ndarray, "n 2"] | Float64[np.ndarray, "2"]
) -> Bool[np.ndarray, " n"]:
    """Whether each xyxy box is at least SMALLEST_SIDE wide and high after the resize; `scale` is (y, x)."""
    corners = boxes.astype(np.float64)
    sides = np.stack((corners[:, 3] - corners[:, 1], corners[:, 2] - corners[:, 0]), axis=1)
    return np.all((sides + ROUNDING) * scale >= SMALLEST_SIDE, axis=1)


def report_small_objects(dataset: CocoDataset, augment: AugmentConfig) -> CocoDataset:
    """The data set with a report of the objects that training leaves out, at each short side of `augment`.

    Raises UserError where no object is large enough at any of them.
    """
    objects = ~dataset.crowd
    notes: dict[str, Note] = {}
    for short_side in augment.short_side:
        small = objects & ~large_enough(dataset.boxes, _scales(dataset, short_side, augment.max_side))
        if small.any():
            reason = (
                f"under {SMALLEST_SIDE:g} pixel wide or high at data.augment.short_side={short_side}, "
                f"max_side={augment.max_side}"
            )
            notes[reason] = Note.of(dataset.annotation_ids[small])
    if notes and all(note.count == objects.sum() for note in notes.values()) and len(notes) == len(augment.short_side):
        raise UserError(
            f"{dataset.annotations}: all {int(objects.sum())} objects are under {SMALLEST_SIDE:g} pixel wide or high "
            f"after the resize; raise data.augment.short_side={list(augment.short_side)} and "
            f"max_side={augment.max_side}"
        )
    return replace(dataset, report=replace(dataset.report, not_trained_on=notes))


def _scales(dataset: CocoDataset, short_side: int, max_side: int) -> Float64[np.ndarray, "M 2"]:
    """The (y, x) factor of the resize for each annotation's image."""
    sizes, which = np.unique(np.stack((dataset.heights, dataset.widths), axis=1), axis=0, return_inverse=True)
    resized = np.array([resized_size(height, width, short_side, max_side) for height, width in sizes.tolist()])
    return (resized / sizes)[which.ravel()].repeat(np.diff(dataset.offsets), axis=0)
