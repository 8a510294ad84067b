"""Reads YOLO's label files: a line an object, with the class and a box or a polygon in fractions of the image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from resdet.data.sets.content import Content, Faults, number
from resdet.files import read_text
from resdet.text import shortened

LARGEST = 64 * 2**20  # bytes of the labels of one image
BEYOND = 0.01  # of the image: a fraction outside [0, 1] by more is wrong, by less it is clipped as in every format
TWICE = "line written twice in a label file"
REMEDY = "a line is a class, from 0 on, and x y width height of the box or the points of a polygon, as fractions"


@dataclass(frozen=True)
class LabelReader:
    """Adds the objects of label files to `content`. `keypoints` is the count of numbers behind a box, which are left
    out (files of poses).
    """

    content: Content
    names: Mapping[int, str]
    keypoints: int
    faults: Faults

    def read(self, path: Path, image: int, height: int, width: int) -> None:
        """The objects of one image; a line that cannot be meant becomes a fault with the file and the line."""
        seen: set[str] = set()
        for row, line in enumerate(read_text(path, REMEDY, largest=LARGEST).splitlines(), start=1):
            if not line.strip():
                continue
            if line in seen:
                self.content.skipped[TWICE] += 1
                continue
            seen.add(line)
            if problem := self._add(line.split(), image, height, width):
                self.faults.add(f"{path}: line {row}: {problem}")

    def _add(self, words: list[str], image: int, height: int, width: int) -> str | None:
        """Adds the object, or returns what is wrong."""
        label = number(words[0], lambda value: value == int(value))
        if label is None or label not in self.names:
            return f"class {shortened(words[0], 40)!r} is none of the {len(self.names)} classes of the data set"
        count = len(words) - 1
        if self.keypoints and count == 4 + self.keypoints:
            words, count = words[:5], 4
        if count != 4 and count < 6:
            return f"{count} numbers behind the class; a box has 4, a polygon at least 6"
        if count % 2:
            return f"{count} numbers behind the class; the points of a polygon have two each"
        fractions = [number(word, lambda value: -BEYOND <= value <= 1 + BEYOND) for word in words[1:]]
        if None in fractions:
            wrong = words[1 + fractions.index(None)]
            return f"{shortened(wrong, 40)!r} is no fraction of the image between 0 and 1"
        values = [value for value in fractions if value is not None]
        if count == 4:
            x, y, w, h = values
            if w < 0 or h < 0:
                return f"the box has the width {w:g} and the height {h:g}"
            self.content.object(image, int(label), ((x - w / 2) * width, (y - h / 2) * height, w * width, h * height))
        else:
            self._polygon(image, int(label), [v * (height if at % 2 else width) for at, v in enumerate(values)])
        return None

    def _polygon(self, image: int, label: int, points: list[float]) -> None:
        xs, ys = points[::2], points[1::2]
        left, top = min(xs), min(ys)
        box = (left, top, max(xs) - left, max(ys) - top)
        self.content.object(image, label, box, area=_area(xs, ys), segmentation=[points])


def _area(xs: list[float], ys: list[float]) -> float:
    """Gauss's formula for the area inside a polygon."""
    terms = (xs[i - 1] * ys[i] - xs[i] * ys[i - 1] for i in range(len(xs)))
    return abs(math.fsum(terms)) / 2
