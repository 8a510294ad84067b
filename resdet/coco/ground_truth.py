"""Ground truth for scoring: the columns of an annotation file that evaluation uses.

All values are valid for the evaluators: ids are dense and checked, numbers are finite, areas and crowd flags are
present.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from resdet.coco.federated import Federated
from resdet.coco.packed_strings import PackedStrings
from resdet.coco.reader import AREA, CLIPPED, Annotations, annotations_from_dict, read_annotations
from resdet.coco.segmentation import Segmentations


@dataclass(frozen=True)
class GroundTruth:
    """I images, K categories, A annotations, in the order of `resdet.coco.reader.Annotations`.

    `image` and `label` are positions in `image_ids` and `category_ids`, which are sorted; `boxes` are (x, y, width,
    height) in pixels of the original image; `difficult` objects (annotation field `difficult` or `ignore`) are left out
    of VOC figures and, as in pycocotools, nowhere else. `remarks` describe the differences from the file.
    """

    source: str
    image_ids: Int64[np.ndarray, " I"]
    file_names: PackedStrings  # empty if the file has none
    sizes: Int64[np.ndarray, "I 2"]  # (height, width); zeros if the file has none
    category_ids: Int64[np.ndarray, " K"]
    class_names: tuple[str, ...]
    annotation_ids: Int64[np.ndarray, " A"]
    image: Int64[np.ndarray, " A"]
    label: Int64[np.ndarray, " A"]
    boxes: Float64[np.ndarray, "A 4"]
    areas: Float64[np.ndarray, " A"]
    crowd: Bool[np.ndarray, " A"]
    difficult: Bool[np.ndarray, " A"]
    masks: Segmentations
    remarks: tuple[str, ...]
    federated: Federated | None = None

    def where(self, index: int) -> str:
        """The name of annotation `index` for a message."""
        image_id = self.image_ids[self.image[index]]
        return f"{self.source}: annotation {self.annotation_ids[index]} (image_id {image_id})"

    def notes(self, iou_type: str = "bbox") -> list[str]:
        """One line for each group of annotations that the figures do not count."""
        unmasked = int(self._unmasked().sum())
        without = int((~self.masks.present()).sum())
        if iou_type == "bbox" or not unmasked:
            return list(self.remarks)
        if without == len(self.label):
            return [*self.remarks, f"{self.source}: no annotation has a mask, so there are no figures of masks"]
        return [
            *self.remarks,
            f"{self.source}: {without} of {len(self.label)} annotations have no usable mask; "
            f"images with such a one ({unmasked}) are left out of segm/...",
        ]

    def masked_images(self, image_ids: Sequence[int]) -> list[int]:
        """The given images without those that have an annotation without a mask."""
        unmasked = set(self.image_ids[self._unmasked()].tolist())
        return [image_id for image_id in image_ids if image_id not in unmasked]

    def _unmasked(self) -> Bool[np.ndarray, " I"]:
        """Images with an annotation that has no usable mask."""
        unmasked = np.zeros(len(self.image_ids), bool)
        unmasked[self.image[~self.masks.present()]] = True
        return unmasked


def read_ground_truth(path: str | Path, *, count_skipped: bool = False) -> GroundTruth:
    """The annotations of a COCO json file. Raises UserError that names the entry for everything that cannot
    be scored.
    """
    return ground_truth(read_annotations(Path(path)), count_skipped=count_skipped)


def ground_truth_from_dict(
    data: dict[str, Any], *, source: str = "ground truth", count_skipped: bool = False
) -> GroundTruth:
    """The same for the parsed content of such a file; `data` is not changed."""
    return ground_truth(annotations_from_dict(data, source=source), count_skipped=count_skipped)


def ground_truth(annotations: Annotations, *, count_skipped: bool = False) -> GroundTruth:
    """The objects to be found: the annotations that training keeps, with the same boxes.

    With `count_skipped`, also the skipped annotations that have an image, and with the boxes of the file, as
    pycocotools reads them. A box of negative size then has size 0.
    """
    count = len(annotations.ids) if count_skipped else annotations.kept
    chosen = slice(count)
    boxes = annotations.given[chosen].copy()
    if count_skipped:
        boxes[:, 2:] = np.maximum(boxes[:, 2:], 0)
    else:
        clipped = annotations.clipped[chosen]
        corners = annotations.boxes[chosen][clipped]
        boxes[clipped] = np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), axis=1)
    order = np.argsort(annotations.image_ids)
    position = np.empty_like(order)
    position[order] = np.arange(len(order))
    return GroundTruth(
        source=annotations.source,
        image_ids=annotations.image_ids[order],
        file_names=annotations.file_names.take(order),
        sizes=np.stack((annotations.heights, annotations.widths), axis=1)[order],
        category_ids=annotations.category_ids,
        class_names=annotations.class_names,
        annotation_ids=annotations.ids[chosen],
        image=position[annotations.image_index[chosen]],
        label=annotations.labels[chosen],
        boxes=boxes,
        areas=annotations.areas[chosen],
        crowd=annotations.crowd[chosen],
        difficult=annotations.difficult[chosen],
        masks=annotations.masks.first(count),
        remarks=tuple(_remarks(annotations, count_skipped=count_skipped)),
        federated=None if annotations.federated is None else annotations.federated.reordered(order),
    )


def _remarks(annotations: Annotations, *, count_skipped: bool) -> list[str]:
    source, read = annotations.source, annotations.read
    lines: list[str] = []
    if annotations.without_crowd_flag:
        lines.append(f"{source}: {annotations.without_crowd_flag} of {read} annotations without iscrowd: taken as 0")
    if AREA in annotations.mended:
        lines.append(f"{source}: {annotations.mended[AREA].count} of {read} annotations: {AREA}")
    skipped = sum(note.count for note in annotations.skipped.values())
    reasons = ", ".join(f"{note.count} {reason}" for reason, note in annotations.skipped.items())
    clipped = annotations.mended[CLIPPED].count if CLIPPED in annotations.mended else 0
    counted = len(annotations.ids) - annotations.kept
    if count_skipped and (counted or clipped):
        lines.append(
            f"{source}: read as pycocotools does: {counted} of {read} annotations are objects to find although training"
            f" skips them, and {clipped} boxes reach beyond their image"
        )
    elif skipped or clipped:
        parts = [f"{skipped} of {read} annotations left out ({reasons})"] if skipped else []
        parts += [f"{clipped} of {read} boxes clipped to their image"] if clipped else []
        remedy = "; eval.count_skipped=true (score --count-skipped) counts them as pycocotools does"
        lines.append(f"{source}: scored with {' and '.join(parts)}{remedy if counted or clipped else ''}")
    return lines
