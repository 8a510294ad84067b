"""Federated annotation files (LVIS): in each image only some classes were looked for."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int64

from resdet.coco.annotation_file import AnnotationFile
from resdet.coco.checks import find_ids
from resdet.coco.records import ImageRecord


@dataclass(frozen=True)
class Federated:
    """What was looked for, by rows (position of the image, label). In an image that is not `federated`, all classes.

    `absent` classes were looked for and are not there; of `partial` classes not every object is marked. The classes of
    an image's annotations were looked for as well. `frequency` has of each class r (rare), c (common), f (frequent) or
    "".
    """

    federated: Bool[np.ndarray, " I"]
    absent: Int64[np.ndarray, "a 2"]
    partial: Int64[np.ndarray, "p 2"]
    frequency: tuple[str, ...]

    def reordered(self, order: Int64[np.ndarray, " I"]) -> Federated:
        """The same for images in another order: position n gets the image that was at `order[n]`."""
        position = np.empty_like(order)
        position[order] = np.arange(len(order))
        absent, partial = (np.stack((position[rows[:, 0]], rows[:, 1]), axis=1) for rows in (self.absent, self.partial))
        return replace(self, federated=self.federated[order], absent=absent, partial=partial)


def federated_of(file: AnnotationFile, category_ids: Int64[np.ndarray, " K"]) -> Federated | None:
    """None for a file in which all classes were looked for everywhere. Ids of no class are left out."""
    federated = np.fromiter((image.neg_category_ids is not None for image in file.images), bool, len(file.images))
    if not federated.any():
        return None
    frequency = {category.id: category.frequency or "" for category in file.categories}
    return Federated(
        federated,
        _rows(file.images, "neg_category_ids", category_ids),
        _rows(file.images, "not_exhaustive_category_ids", category_ids),
        tuple(frequency[number] for number in category_ids.tolist()),
    )


def remarks_on(federated: Federated | None) -> list[str]:
    """A remark on a file in which only some classes were looked for in each image (LVIS)."""
    if federated is None:
        return []
    return [
        f"federated: in {int(federated.federated.sum())} images only some classes were looked for; the others count as "
        "absent in training (as in Detectron2) and in COCO's figures; eval.metric=lvis adds LVIS's"
    ]


def _rows(images: list[ImageRecord], field: str, category_ids: Int64[np.ndarray, " K"]) -> Int64[np.ndarray, "n 2"]:
    pairs = [(at, number) for at, image in enumerate(images) for number in getattr(image, field) or ()]
    rows = np.array(pairs, np.int64).reshape(-1, 2)
    labels, known = find_ids(rows[:, 1], category_ids)
    return np.unique(np.stack((rows[:, 0], labels), axis=1)[known], axis=0)
