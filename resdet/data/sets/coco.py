"""COCO annotation files, read once into compact frozen arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int64

from resdet.coco import segmentation, validate
from resdet.coco.annotation_file import AnnotationFile, read_annotation_file
from resdet.coco.report import DataReport, Note
from resdet.coco.segmentation import PackedMasks, Segmentations, row_offsets, take_groups
from resdet.coco.validate import Objects
from resdet.errors import UserError


@dataclass(frozen=True)
class PackedStrings:
    """Many strings in two buffers: worker processes share them, for there is no object whose count could change."""

    blob: bytes
    offsets: Int64[np.ndarray, " n1"]

    @classmethod
    def of(cls, strings: Iterable[str]) -> PackedStrings:
        encoded = [string.encode() for string in strings]
        return cls(b"".join(encoded), row_offsets(np.fromiter(map(len, encoded), np.int64, len(encoded))))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> str:
        return self.blob[self.offsets[index] : self.offsets[index + 1]].decode()


@dataclass(frozen=True)
class CocoDataset:
    """N images in the file's order and their M annotations, grouped by image; K classes by ascending category id.

    Boxes are (x1, y1, x2, y2) in pixels of the original image, inside it and with a positive area. `crowd` marks
    what is neither to be found nor held against a detector in training: crowd regions and difficult objects.
    `classes[label]` and `category_ids[label]` name a label; evaluation maps back through the latter.
    """

    annotations: Path
    images: Path
    report: DataReport
    category_ids: Int64[np.ndarray, " K"]
    class_names: tuple[str, ...]

    image_ids: Int64[np.ndarray, " N"]
    file_names: PackedStrings
    heights: Int64[np.ndarray, " N"]
    widths: Int64[np.ndarray, " N"]

    offsets: Int64[np.ndarray, " N+1"]
    boxes: Float32[np.ndarray, "M 4"]
    labels: Int64[np.ndarray, " M"]
    crowd: Bool[np.ndarray, " M"]
    areas: Float32[np.ndarray, " M"]
    annotation_ids: Int64[np.ndarray, " M"]
    segmentations: Segmentations

    def __len__(self) -> int:
        return len(self.image_ids)

    def rows(self, index: int) -> slice:
        """The annotations of one image."""
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))

    def path(self, index: int) -> Path:
        return self.images / self.file_names[index]

    def objects_per_image(self) -> Int64[np.ndarray, " N"]:
        """How many annotations that are to be found each image has."""
        image = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        return np.bincount(image[~self.crowd], minlength=len(self))

    def take(self, indices: Int64[np.ndarray, " n"]) -> CocoDataset:
        """The chosen images, in that order; the report still speaks of the whole file."""
        offsets, rows = take_groups(self.offsets, indices)
        return replace(
            self,
            image_ids=self.image_ids[indices],
            file_names=PackedStrings.of(self.file_names[index] for index in indices.tolist()),
            heights=self.heights[indices],
            widths=self.widths[indices],
            offsets=offsets,
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            crowd=self.crowd[rows],
            areas=self.areas[rows],
            annotation_ids=self.annotation_ids[rows],
            segmentations=self.segmentations.take(rows),
        )


def read_coco(
    annotations: Path, images: Path, *, require_objects: bool = False, max_missing_fraction: float = 0.0
) -> CocoDataset:
    """Read and check an annotation file and the names in its folder of images.

    `require_objects`: a file in which no image has an object is an error (training would learn nothing).
    `max_missing_fraction`: that many image files may be absent; reading one of them fails later.
    Raises UserError naming the file, ids, field, value and remedy. What was skipped or mended is in `.report`.
    """
    file = read_annotation_file(annotations)
    category_ids, class_names = validate.categories(file)
    image_ids = validate.images(file)
    missing = validate.image_files(file, images, max_missing_fraction)
    objects = validate.objects(file, image_ids, category_ids)

    packed = segmentation.pack(
        [file.annotations[row].segmentation for row in objects.rows.tolist()],
        objects.heights,
        objects.widths,
        objects.refuse_mask,
    )
    report = _report(file, images, missing, class_names, objects, packed)
    if require_objects and not report.objects:
        raise UserError(
            f"{annotations}: no image has an object, so there is nothing to learn from "
            f"({report.summary()}); check the annotations"
        )
    return CocoDataset(
        annotations=annotations,
        images=images,
        report=report,
        category_ids=category_ids,
        class_names=class_names,
        image_ids=image_ids,
        file_names=PackedStrings.of(image.file_name for image in file.images),
        heights=np.array([image.height for image in file.images], np.int64),
        widths=np.array([image.width for image in file.images], np.int64),
        offsets=row_offsets(np.bincount(objects.image_index, minlength=len(image_ids))),
        boxes=objects.boxes.astype(np.float32),
        labels=objects.labels,
        crowd=objects.crowd | objects.difficult,
        areas=objects.areas.astype(np.float32),
        annotation_ids=objects.ids,
        segmentations=packed.masks,
    )


def _report(
    file: AnnotationFile,
    folder: Path,
    missing: list[str],
    class_names: tuple[str, ...],
    kept: Objects,
    packed: PackedMasks,
) -> DataReport:
    left_out = kept.crowd | kept.difficult
    objects_in = np.bincount(kept.image_index[~left_out], minlength=len(file.images))
    crowd_in = np.bincount(kept.image_index[left_out], minlength=len(file.images))
    by_class = np.bincount(kept.labels[~left_out], minlength=len(class_names)).tolist()
    renamed = len(set(class_names) - {category.name for category in file.categories})
    fixed = kept.fixed | {reason: Note.of(kept.ids[rows]) for reason, rows in packed.clipped.items()}
    if renamed:
        fixed["class name given twice, told apart by its category id"] = Note(renamed, [])
    return DataReport(
        annotations=str(file.path),
        images_folder=str(folder),
        images=len(file.images),
        images_without_objects=int(((objects_in == 0) & (crowd_in == 0)).sum()),
        images_with_crowd_only=int(((objects_in == 0) & (crowd_in > 0)).sum()),
        missing_files=missing,
        annotations_read=len(file.annotations),
        annotations_kept=len(kept.rows),
        objects=int(objects_in.sum()),
        crowd=int(kept.crowd.sum()),
        difficult=int((kept.difficult & ~kept.crowd).sum()),
        masks=int(packed.masks.present().sum()),
        class_counts=dict(zip(class_names, by_class, strict=True)),
        skipped=kept.skipped,
        skipped_masks={reason: Note.of(kept.ids[rows]) for reason, rows in packed.skipped.items()},
        fixed=fixed,
    )
