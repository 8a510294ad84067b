"""COCO annotation files for training: compact read-only arrays, and the folder of the images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int64

from resdet.coco.ground_truth import GroundTruth, ground_truth
from resdet.coco.groups import row_offsets, take_groups
from resdet.coco.image_files import MAX_PIXELS, MAX_SIDE, check_file_name, missing_files, surely_plain
from resdet.coco.packed_strings import PackedStrings
from resdet.coco.reader import Annotations
from resdet.coco.report import EXAMPLES, DataReport
from resdet.coco.segmentation import Segmentations
from resdet.errors import UserError


@dataclass(frozen=True)
class CocoDataset:
    """N images in the file's order and their M annotations, grouped by image; K classes by ascending category id.

    Boxes are (x1, y1, x2, y2) in pixels of the original image, inside it and with a positive area. `crowd` marks
    regions that are neither positives nor negatives in training: crowd regions and difficult objects.
    `class_names[label]` and `category_ids[label]` name a label; evaluation maps back through the latter. `content` is
    the whole file, parsed once; `ground_truth` is the part of it that is scored.
    """

    annotations: Path
    images: Path
    content: Annotations
    report: DataReport
    category_ids: Int64[np.ndarray, " K"]
    class_names: tuple[str, ...]

    image_ids: Int64[np.ndarray, " N"]
    file_names: PackedStrings
    heights: Int64[np.ndarray, " N"]
    widths: Int64[np.ndarray, " N"]
    missing: Bool[np.ndarray, " N"]  # images without a file, if the config permits them

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
        """The number of annotations to be found in each image."""
        image = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        return np.bincount(image[~self.crowd], minlength=len(self))

    def objects_per_image_and_class(self) -> Int64[np.ndarray, "N K"]:
        """The same for each class."""
        image = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        classes = len(self.class_names)
        cells = (image * classes + self.labels)[~self.crowd]
        return np.bincount(cells, minlength=len(self) * classes).reshape(len(self), classes)

    def ground_truth(self, *, count_skipped: bool = False) -> GroundTruth:
        """The objects to be found in the whole file; see `resdet.coco.ground_truth.ground_truth`."""
        return ground_truth(self.content, count_skipped=count_skipped)

    def scored_images(self, *, count_skipped: bool = False) -> list[int]:
        """Ids of the images to score: those whose file exists and, with `count_skipped`, also the missing ones."""
        return (self.image_ids if count_skipped else self.image_ids[~self.missing]).tolist()

    def take(self, indices: Int64[np.ndarray, " n"]) -> CocoDataset:
        """The chosen images, in that order; the report still describes the whole file."""
        offsets, rows = take_groups(self.offsets, indices)
        return replace(
            self,
            image_ids=self.image_ids[indices],
            file_names=self.file_names.take(indices),
            heights=self.heights[indices],
            widths=self.widths[indices],
            missing=self.missing[indices],
            offsets=offsets,
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            crowd=self.crowd[rows],
            areas=self.areas[rows],
            annotation_ids=self.annotation_ids[rows],
            segmentations=self.segmentations.take(rows),
        )


def dataset_of(
    content: Annotations, images: Path, *, require_objects: bool = False, max_missing_fraction: float = 0.0
) -> CocoDataset:
    """Checks what an annotation file says against the names in its folder of images.

    `require_objects`: a file in which no image has an object is an error (training would learn nothing).
    `max_missing_fraction`: this fraction of the image files may be absent; reading one of them fails later. Raises
    UserError naming the file, ids, field, value and remedy. `.report` lists the skipped and corrected annotations.
    """
    _check_images(content)
    missing = _image_files(content, images, max_missing_fraction)
    kept = slice(content.kept)
    report = _report(content, images, missing)
    if require_objects and not report.objects:
        raise UserError(
            f"{content.source}: no image has an object, so there is nothing to learn from "
            f"({report.summary()}); check the annotations"
        )
    absent = set(missing)
    return CocoDataset(
        annotations=Path(content.source),
        images=images,
        content=content,
        report=report,
        category_ids=content.category_ids,
        class_names=content.class_names,
        image_ids=content.image_ids,
        file_names=content.file_names,
        heights=content.heights,
        widths=content.widths,
        missing=np.array([name in absent for name in content.file_names], bool)
        if absent
        else np.zeros(len(content.image_ids), bool),
        offsets=row_offsets(np.bincount(content.image_index[kept], minlength=len(content.image_ids))),
        boxes=content.boxes[kept].astype(np.float32),
        labels=content.labels[kept],
        crowd=content.crowd[kept] | content.difficult[kept],
        areas=content.areas[kept].astype(np.float32),
        annotation_ids=content.ids[kept],
        segmentations=content.masks.first(content.kept),
    )


def _check_images(content: Annotations) -> None:
    """Raises UserError for an image without a size that can be decoded, or without a name below the images folder."""
    heights, widths = content.heights, content.widths
    fits = (
        (heights > 0) & (widths > 0) & (heights <= MAX_SIDE) & (widths <= MAX_SIDE) & (heights * widths <= MAX_PIXELS)
    )
    suspicious = ~fits | ~surely_plain(content.file_names)
    for index in np.flatnonzero(suspicious).tolist():
        name, height, width = content.file_names[index], int(heights[index]), int(widths[index])
        where = f"{content.source}: image id {content.image_ids[index]}"
        if not name:
            raise UserError(f"{where}: field 'file_name' is missing or empty; name the image's file")
        if not height or not width:
            raise UserError(f"{where} ({name[:200]!r}): height and width are not both given; give them")
        if not fits[index]:
            raise UserError(
                f"{where} ({name[:200]!r}): height {height}, width {width}; must be at most {MAX_SIDE} pixels "
                f"each and at most {MAX_PIXELS} together; correct or downscale it"
            )
        check_file_name(name, where)


def _image_files(content: Annotations, folder: Path, max_missing_fraction: float) -> list[str]:
    """The names without a file in the folder, unless more are missing than permitted."""
    missing = missing_files(folder, list(content.file_names), content.source)
    count = len(content.image_ids)
    if len(missing) > max_missing_fraction * count:
        first = ", ".join(repr(name[:200]) for name in missing[:EXAMPLES])
        raise UserError(
            f"{folder}: {len(missing)} of {count} image files of {content.source} are missing "
            f"(first: {first}); check the images folder, or allow some with data.on_bad_image=skip"
        )
    return missing


def _report(content: Annotations, folder: Path, missing: list[str]) -> DataReport:
    kept = slice(content.kept)
    crowd, difficult, images = content.crowd[kept], content.difficult[kept], len(content.image_ids)
    left_out = crowd | difficult
    objects_in = np.bincount(content.image_index[kept][~left_out], minlength=images)
    crowd_in = np.bincount(content.image_index[kept][left_out], minlength=images)
    by_class = np.bincount(content.labels[kept][~left_out], minlength=len(content.class_names)).tolist()
    return DataReport(
        annotations=content.source,
        images_folder=str(folder),
        images=images,
        images_without_objects=int(((objects_in == 0) & (crowd_in == 0)).sum()),
        images_with_crowd_only=int(((objects_in == 0) & (crowd_in > 0)).sum()),
        missing_files=missing,
        annotations_read=content.read,
        annotations_kept=content.kept,
        objects=int(objects_in.sum()),
        crowd=int(crowd.sum()),
        difficult=int((difficult & ~crowd).sum()),
        masks=int(content.masks.first(content.kept).present().sum()),
        class_counts=dict(zip(content.class_names, by_class, strict=True)),
        skipped=content.skipped,
        skipped_masks=content.skipped_masks,
        fixed=content.mended,
        remarks=list(content.remarks),
    )
