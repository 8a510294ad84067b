"""The report of reading an annotation file: consistent counts, for the user and for data_report.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int64

EXAMPLES = 5  # ids that are listed in a report or message


@dataclass(frozen=True)
class Note:
    """The number of annotations with one remark, and the ids of the first."""

    count: int
    examples: list[int]

    @classmethod
    def of(cls, annotation_ids: Int64[np.ndarray, " n"]) -> Note:
        return cls(len(annotation_ids), annotation_ids[:EXAMPLES].tolist())

    @classmethod
    def of_count(cls, count: int, examples: list[int]) -> Note:
        return cls(count, examples[:EXAMPLES])


@dataclass(frozen=True)
class DataReport:
    """The numbers of annotations read, kept, skipped and corrected: `annotations_read == annotations_kept + sum of
    skipped`.
    """

    annotations: str
    images_folder: str
    images: int
    images_without_objects: int
    images_with_crowd_only: int  # or difficult objects
    missing_files: list[str]
    annotations_read: int
    annotations_kept: int
    objects: int  # kept, and neither crowd nor difficult
    crowd: int
    difficult: int  # not trained on
    masks: int
    class_counts: dict[str, int]  # objects per class
    skipped: dict[str, Note]
    skipped_masks: dict[str, Note]  # the annotation itself is kept, with its box
    fixed: dict[str, Note]
    not_trained_on: dict[str, Note] = field(default_factory=dict)  # objects that are too small after the resize
    remarks: list[str] = field(default_factory=list)  # about the choice of images and classes

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def summary(self) -> str:
        counts = [
            f"{self.annotations}: {self.images} images, {self.objects} objects, {len(self.class_counts)} classes",
            f"{self.crowd} crowd" if self.crowd else "",
            f"{self.difficult} difficult" if self.difficult else "",
            f"{len(self.missing_files)} image files missing" if self.missing_files else "",
            *(f"skipped {note.count} ({reason})" for reason, note in self.skipped.items()),
            *(f"left out {note.count} masks ({reason})" for reason, note in self.skipped_masks.items()),
            *(f"mended {note.count} ({reason})" for reason, note in self.fixed.items()),
            *(f"not trained on {note.count} ({reason})" for reason, note in self.not_trained_on.items()),
            *self.remarks,
        ]
        return ", ".join(filter(None, counts))
