"""Detections to be scored, as columns: collected image by image, or read from a COCO results file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Float, Float64, Int, Int64

from resdet.coco.checks import box_array, check_boxes, find_ids, int_array, refuse_first
from resdet.coco.convention import LOOKS_LIKE_CORNERS, boxes_like_corners
from resdet.coco.ground_truth import GroundTruth
from resdet.coco.json_file import read_json
from resdet.coco.pairing import NamedImages, paired_ids
from resdet.errors import UserError

EXPECTED = "a COCO results file: a list of {image_id, category_id, bbox or segmentation, score}"


class _Result(msgspec.Struct, gc=False):
    image_id: int
    category_id: int
    score: float
    bbox: list[float] | None = None
    segmentation: Any = None
    file_name: str | None = None


class CocoResults:
    """Detections of a whole data set as columns, n entries in the order they were added.

    `boxes` are (x, y, width, height) in pixels of the original image; `boxes` and `segmentations` (run-length
    encodings in COCO's form) are None where the detections have none. `unreadable` has the id and the problem of each
    image that could not be read. Instances pickle, so processes can exchange them and `extend` one with the others.
    """

    def __init__(self, source: str = "predictions") -> None:
        self.source = source
        self.remarks: tuple[str, ...] = ()  # one line for each remark about reading a file
        self.unreadable: dict[int, str] = {}
        self._image_ids: list[np.ndarray] = []
        self._category_ids: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []
        self._boxes: list[np.ndarray] | None = []
        self._segmentations: list[Any] | None = []

    def add(
        self,
        image_id: int,
        boxes_xyxy: Float[np.ndarray, "n 4"],
        scores: Float[np.ndarray, " n"],
        category_ids: Int[np.ndarray, " n"],
        segmentations: Sequence[Any] | None = None,
    ) -> None:
        """One image's detections; boxes are (x1, y1, x2, y2) in pixels of the original image."""
        corners = boxes_xyxy.astype(np.float64)
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        self.add_columns(np.full(len(scores), image_id), category_ids, scores, boxes, segmentations)

    def add_columns(
        self,
        image_ids: Int[np.ndarray, " n"],
        category_ids: Int[np.ndarray, " n"],
        scores: Float[np.ndarray, " n"],
        boxes: Float[np.ndarray, "n 4"] | None,
        segmentations: Sequence[Any] | None,
    ) -> None:
        """Detections of any images; `boxes` are (x, y, width, height)."""
        if len(scores) == 0:
            return
        self._image_ids.append(image_ids.astype(np.int64))
        self._category_ids.append(category_ids.astype(np.int64))
        self._scores.append(scores.astype(np.float64))
        if boxes is None or self._boxes is None:
            self._boxes = None
        else:
            self._boxes.append(boxes.astype(np.float64))
        if segmentations is None or self._segmentations is None:
            self._segmentations = None
        else:
            self._segmentations.extend(segmentations)

    def extend(self, others: Sequence[CocoResults]) -> None:
        """Adds the detections of other collectors, in their order."""
        for other in others:
            self.add_columns(other.image_ids, other.category_ids, other.scores, other.boxes, other.segmentations)
            self.unreadable |= other.unreadable

    def of_classes(self, category_ids: Int64[np.ndarray, " K"]) -> CocoResults:
        """Only the detections of these categories, in their order."""
        rows = np.flatnonzero(np.isin(self.category_ids, category_ids))
        if len(rows) == len(self):
            return self
        chosen = CocoResults(self.source)
        chosen.unreadable = dict(self.unreadable)
        chosen.add_columns(
            self.image_ids[rows],
            self.category_ids[rows],
            self.scores[rows],
            None if self.boxes is None else self.boxes[rows],
            None if self.segmentations is None else [self.segmentations[row] for row in rows.tolist()],
        )
        return chosen

    def __len__(self) -> int:
        return sum(map(len, self._scores))

    @property
    def image_ids(self) -> Int64[np.ndarray, " n"]:
        return _joined(self._image_ids, np.zeros(0, dtype=np.int64))

    @property
    def category_ids(self) -> Int64[np.ndarray, " n"]:
        return _joined(self._category_ids, np.zeros(0, dtype=np.int64))

    @property
    def scores(self) -> Float64[np.ndarray, " n"]:
        return _joined(self._scores, np.zeros(0))

    @property
    def boxes(self) -> Float64[np.ndarray, "n 4"] | None:
        return None if self._boxes is None else _joined(self._boxes, np.zeros((0, 4)))

    @property
    def segmentations(self) -> list[Any] | None:
        return self._segmentations

    def where(self, index: int) -> str:
        """The name of entry `index` for a message."""
        return f"{self.source}: result {index} (image_id {self.image_ids[index]})"

    def to_json(self) -> list[dict[str, Any]]:
        """The content of a COCO results file; reading it back gives the same numbers to the last bit."""
        columns: dict[str, list[Any]] = {
            "image_id": self.image_ids.tolist(),
            "category_id": self.category_ids.tolist(),
            "score": self.scores.tolist(),
        }
        if self.boxes is not None:
            columns["bbox"] = self.boxes.tolist()
        if self.segmentations is not None:
            columns["segmentation"] = [_writable(segmentation) for segmentation in self.segmentations]
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _joined(parts: list[np.ndarray], empty: np.ndarray) -> np.ndarray:
    if len(parts) > 1:
        parts[:] = [np.concatenate(parts)]
    return parts[0] if parts else empty


def _writable(segmentation: Any) -> Any:
    """pycocotools stores the string form as bytes, which JSON does not support."""
    if isinstance(segmentation, dict) and isinstance(segmentation.get("counts"), bytes):
        return {**segmentation, "counts": segmentation["counts"].decode("ascii")}
    return segmentation


def read_results(path: str | Path, ground_truth: GroundTruth) -> CocoResults:
    """The detections of a COCO results file, checked against the ground truth.

    They are paired with its images by `file_name` if both the results and the ground truth have it, otherwise by image
    id. Raises UserError that names the entry (its index in the file, counted from 0) for anything that cannot be
    scored.
    """
    entries = read_json(path, list[_Result], expected=EXPECTED)
    results = CocoResults(str(path))
    if not entries:
        return results

    def where(index: int) -> str:
        return f"{path}: result {index} (image_id {entries[index].image_id})"

    boxes = segmentations = None
    if _present([entry.bbox for entry in entries], "bbox", where):
        boxes = box_array([entry.bbox or [] for entry in entries], where)
    if _present([entry.segmentation for entry in entries], "segmentation", where):
        segmentations = [entry.segmentation for entry in entries]
    image_ids = int_array([entry.image_id for entry in entries], str(path))
    if _present([entry.file_name for entry in entries], "file_name", where) and all(ground_truth.file_names):
        images = NamedImages(ground_truth.source, ground_truth.image_ids, list(ground_truth.file_names))
        paired = paired_ids(image_ids, [entry.file_name or "" for entry in entries], images, where)
        changed = len(set(paired[paired != image_ids].tolist()))
        if changed:
            results.remarks = (f"{path}: paired by file_name; {changed} images have another id in {images.source}",)
        image_ids = paired
    results.add_columns(
        image_ids,
        int_array([entry.category_id for entry in entries], str(path)),
        np.array([entry.score for entry in entries], dtype=np.float64),
        boxes,
        segmentations,
    )
    check_results(results, ground_truth)
    _check_convention(results, ground_truth)
    return results


def _check_convention(results: CocoResults, ground_truth: GroundTruth) -> None:
    """Raises UserError for boxes that look like corners, by the same rule as for annotations."""
    if results.boxes is None:
        return
    image, _ = find_ids(results.image_ids, ground_truth.image_ids)
    sizes = ground_truth.sizes[image]
    sized = sizes.all(axis=1)
    count = boxes_like_corners(results.boxes[sized], sizes[sized, 0], sizes[sized, 1])
    if count:
        raise UserError(f"{results.source}: {count} of {int(sized.sum())} {LOOKS_LIKE_CORNERS}")


def _present(values: list[Any], field: str, where: Any) -> bool:
    """Whether all entries have the field; it is an error if only some have it."""
    missing = [value is None for value in values]
    if any(missing) and not all(missing):
        raise UserError(f"{where(missing.index(True))}: no {field}, which other results of the file have")
    return not missing[0]


def check_results(results: CocoResults, ground_truth: GroundTruth) -> None:
    """Raises UserError unless every score and box is finite and every image and category is known."""
    if not len(results):
        return
    refuse_first(~np.isfinite(results.scores), results.scores, results.where, "score", "a finite number")
    if results.boxes is not None:
        check_boxes(results.boxes, results.where)
    _, known_image = find_ids(results.image_ids, ground_truth.image_ids)
    if not known_image.any():
        raise UserError(
            f"{results.source}: has no image id in common with {ground_truth.source} (results for image "
            f"{results.image_ids[0]} ..., ground truth for {ground_truth.image_ids[0]} ...); score it with the "
            "annotations of its own data set"
        )
    images = f"an image id of {ground_truth.source}"
    refuse_first(~known_image, results.image_ids, results.where, "image_id", images)
    _, known_category = find_ids(results.category_ids, ground_truth.category_ids)
    categories = f"one of its category ids, {_range(ground_truth.category_ids)}"
    refuse_first(~known_category, results.category_ids, results.where, "category_id", categories)


def _range(ids: np.ndarray) -> str:
    return ", ".join(map(str, ids.tolist())) if len(ids) <= 10 else f"{ids[0]} .. {ids[-1]} ({len(ids)} of them)"
