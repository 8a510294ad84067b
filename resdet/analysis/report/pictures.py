"""Images with boxes: the page embeds each image once, reduced in size; each box is an SVG element with its score."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from jaxtyping import UInt8

from resdet.analysis.report.marks import Mark, labelled
from resdet.analysis.report.scored import Scored
from resdet.coco.run_lengths import checked_masks
from resdet.data.images.decode import ImageError, read_image, resize
from resdet.data.images.masks import MaskWindow, encoded_window, mask_window
from resdet.data.sets.coco import CocoDataset
from resdet.drawing.boxes import class_color
from resdet.evaluation.analysis.errors import WorstImage
from resdet.predict.gallery import spread

WIDTH, HEIGHT = 300, 390  # of a picture's viewBox: the picture fills one of the two
MOST_MARKS = 100  # of a kind, per picture
MOST_OUTLINED = 2**26  # pixels of an image in which masks get outlines
SMOOTHNESS = 0.5  # the permitted distance of an outline from its mask, in units of the viewBox
MISSED, FALSE, RIGHT = "#ffb020", "#ff4d5e", "#35d07f"
WRONG = {
    "classification": "wrong class",
    "localization": "box off",
    "both": "class and box",
    "duplicate": "twice",
    "background": "nothing there",
}


@dataclass(frozen=True)
class Detail:
    """The number and the quality of the pictures of a page."""

    gallery: int
    worst: int
    side: int  # pixels of an image's longer side
    quality: int  # of its JPEG


@dataclass(frozen=True)
class Picture:
    """An image of the val set; `source` is a data URI, `anchor` its name within the page."""

    anchor: str
    name: str
    source: str
    width: float
    height: float
    truth: Sequence[Mark] = ()
    found: Sequence[Mark] = ()
    objects: int = 0  # in the ground truth, of which the largest are drawn
    detections: int = 0  # of which the best are drawn
    remark: str = ""

    @property
    def bottom(self) -> float:
        """The lower end of the picture with the tags below it, of objects that fill it."""
        return max([self.height, *(mark.tag[3] + 2 for mark in (*self.truth, *self.found) if mark.tag)])


@dataclass
class Album:
    """Pictures of one val set. Each image is read once; images that cannot be read are counted in `unreadable`."""

    scored: Scored
    side: int
    sixteen_bit: str
    unreadable: dict[str, str] = field(default_factory=dict)
    _images: dict[int, UInt8[np.ndarray, "h w 3"] | None] = field(default_factory=dict)

    def gallery(self, detail: Detail) -> list[Picture]:
        """Images at even distances with all their objects and detections."""
        rows_of = _rows_by_image(self.scored)
        pictures: list[Picture] = []
        for index in spread(self.scored.dataset, detail.gallery):
            rows = rows_of.get(int(self.scored.dataset.image_ids[index]), [])
            found = [self._found(row, index, "found") for row in rows[:MOST_MARKS]]
            truth = self._truth(index)
            for picture in self._picture(index, "g", detail, truth=truth[:MOST_MARKS], found=found):
                pictures.append(replace(picture, objects=len(truth), detections=len(rows)))
        return pictures

    def worst(self, detail: Detail) -> list[Picture]:
        """The images with the most missed objects and wrong boxes, first those with most of them, drawn together with
        the correct boxes.
        """
        index_of = {int(image_id): i for i, image_id in enumerate(self.scored.dataset.image_ids.tolist())}
        pictures: list[Picture] = []
        for worst in self.scored.boxes.worst[: detail.worst]:
            index = index_of[worst.image_id]
            remark = (
                f"{_many(len(worst.missed), 'object')} missed, {_many(len(worst.false), 'wrong box', 'wrong boxes')}"
            )
            if max(map(len, (worst.missed, worst.false, worst.found))) > MOST_MARKS:
                remark += f" ({MOST_MARKS} of each are drawn)"
            pictures += self._picture(index, "w", detail, found=self._errors(worst, index), remark=remark)
        return pictures

    def _picture(
        self,
        index: int,
        prefix: str,
        detail: Detail,
        *,
        truth: Sequence[Mark] = (),
        found: Sequence[Mark] = (),
        remark: str = "",
    ) -> Iterator[Picture]:
        """None if the image cannot be read."""
        dataset = self.scored.dataset
        image = self._image(index)
        if image is None:
            return
        scale = _scale(dataset, index)
        width, height = (  # at least a unit: an image may be 16384 times as long as wide
            max(1.0, round(float(sides[index]) * scale, 1)) for sides in (dataset.widths, dataset.heights)
        )
        yield Picture(
            anchor=f"{prefix}{index}",
            name=dataset.file_names[index],
            source=data_uri(image, side=detail.side, quality=detail.quality),
            width=width,
            height=height,
            truth=labelled(truth, width, height),
            found=labelled(found, width, height),
            remark=remark,
        )

    def _image(self, index: int) -> UInt8[np.ndarray, "h w 3"] | None:
        if index not in self._images:
            dataset = self.scored.dataset
            size = int(dataset.heights[index]), int(dataset.widths[index])
            try:
                image = read_image(dataset.path(index), *size, sixteen_bit=self.sixteen_bit)
            except ImageError as error:
                self.unreadable[dataset.file_names[index]] = str(error)
                self._images[index] = None
            else:
                self._images[index] = shrunk(image, self.side)
        return self._images[index]

    def _truth(self, index: int) -> list[Mark]:
        dataset = self.scored.dataset
        rows = range(dataset.rows(index).start, dataset.rows(index).stop)
        boxes = dataset.boxes[dataset.rows(index)]
        marks = [
            self._mark(
                index,
                boxes[i, :2].tolist() + (boxes[i, 2:] - boxes[i, :2]).tolist(),
                label=int(dataset.labels[row]),
                kind="truth",
                outline=self._true_outline(row, index),
                remark="crowd region" if dataset.crowd[row] else "",
            )
            for i, row in enumerate(rows)
        ]
        return _large_first(marks)

    def _found(self, row: int, index: int, kind: str, *, color: str = "", remark: str = "") -> Mark:
        """Detection number `row` of the results."""
        results = self.scored.results
        assert results.boxes is not None
        label = int(np.searchsorted(self.scored.truth.category_ids, results.category_ids[row]))
        outline = self._found_outline(row, index)
        score, box = float(results.scores[row]), results.boxes[row].tolist()
        return self._mark(index, box, label=label, kind=kind, score=score, color=color, outline=outline, remark=remark)

    def _errors(self, worst: WorstImage, index: int) -> list[Mark]:
        truth = self.scored.truth
        right = [self._found(row, index, "right", color=RIGHT) for row in worst.found.tolist()]
        missed = [
            self._mark(index, truth.boxes[i].tolist(), label=int(truth.label[i]), kind="missed", color=MISSED)
            for i in worst.missed.tolist()
        ]
        false = [
            self._found(row, index, "false", color=FALSE, remark=WRONG[kind])
            for row, kind in zip(worst.false.tolist(), worst.false_types, strict=True)
        ]
        return [*right[:MOST_MARKS], *_large_first(missed)[:MOST_MARKS], *false[:MOST_MARKS]]

    def _mark(
        self,
        index: int,
        box: Sequence[float],
        *,
        label: int,
        kind: str,
        score: float | None = None,
        color: str = "",
        outline: str = "",
        remark: str = "",
    ) -> Mark:
        """`box` is (x, y, width, height) in pixels of the image."""
        scale = _scale(self.scored.dataset, index)
        x, y, width, height = (round(value * scale, 1) for value in box)
        name = " ".join(self.scored.truth.class_names[label].split())
        name = name if len(name) <= 24 else f"{name[:23]}…"
        red, green, blue = class_color(label)
        color = color or f"#{red:02x}{green:02x}{blue:02x}"
        return Mark(x, y, width, height, name, color, kind, score=score, outline=outline, remark=remark)

    def _true_outline(self, row: int, index: int) -> str:
        dataset = self.scored.dataset
        height, width = int(dataset.heights[index]), int(dataset.widths[index])
        if self.scored.masks is None or height * width > MOST_OUTLINED:
            return ""
        return outline_path(mask_window(dataset.segmentations, row, height, width), _scale(dataset, index))

    def _found_outline(self, row: int, index: int) -> str:
        dataset, segmentations = self.scored.dataset, self.scored.results.segmentations
        size = int(dataset.heights[index]), int(dataset.widths[index])
        if self.scored.masks is None or segmentations is None or size[0] * size[1] > MOST_OUTLINED:
            return ""
        mask = checked_masks([segmentations[row]], [size], lambda _: self.scored.results.where(row))[0]
        return outline_path(encoded_window(mask), _scale(dataset, index))


def outline_path(window: MaskWindow, scale: float) -> str:
    """The outlines of a mask, including holes, as an SVG path."""
    if not window.pixels.size:
        return ""
    corner = np.array([window.x, window.y], np.float32) + 0.5  # the middle of its first pixel
    contours, _ = cv2.findContours(np.ascontiguousarray(window.pixels), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    parts: list[str] = []
    for contour in contours:
        points = (contour[:, 0].astype(np.float32) + corner) * np.float32(scale)
        points = cv2.approxPolyDP(points[:, None], SMOOTHNESS, closed=True)[:, 0]
        if len(points) > 2:
            parts.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points.tolist()) + "Z")
    return "".join(parts)


def data_uri(image: UInt8[np.ndarray, "h w 3"], *, side: int, quality: int) -> str:
    """The image as a JPEG whose longer side has at most `side` pixels."""
    bgr = np.ascontiguousarray(shrunk(image, side)[..., ::-1])
    written, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert written
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"


def shrunk(image: UInt8[np.ndarray, "H W 3"], side: int) -> UInt8[np.ndarray, "h w 3"]:
    """The image reduced to a longer side of at most `side` pixels."""
    height, width = image.shape[:2]
    scale = min(1.0, side / max(height, width))
    return resize(image, (max(1, round(height * scale)), max(1, round(width * scale))))


def _scale(dataset: CocoDataset, index: int) -> float:
    """From pixels of an image to units of its viewBox."""
    return min(WIDTH / float(dataset.widths[index]), HEIGHT / float(dataset.heights[index]))


def _rows_by_image(scored: Scored) -> dict[int, list[int]]:
    """The detections of each image, best first."""
    order = np.argsort(-scored.results.scores, kind="stable")
    rows: dict[int, list[int]] = {}
    for row, image_id in zip(order.tolist(), scored.results.image_ids[order].tolist(), strict=True):
        rows.setdefault(image_id, []).append(row)
    return rows


def _large_first(marks: Iterable[Mark]) -> list[Mark]:
    """Large boxes first, so that small boxes are drawn on top."""
    return sorted(marks, key=lambda mark: -mark.width * mark.height)


def _many(number: int, noun: str, nouns: str = "") -> str:
    return f"{number or 'no'} {noun if number == 1 else nouns or noun + 's'}"
