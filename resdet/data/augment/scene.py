"""A training sample on its way through a list of transforms, and the moves from which all of them are made.

Every object keeps its row of the data set, from which label and ids are gathered at the end, so that nothing can get
out of line. Its mask stays where it came from (the data set, or a bitmap that a transform had to make), together with
the map from there to the image: the mask is sampled once, at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64, UInt8

from resdet.data.images.decode import resize
from resdet.data.images.masks import MaskWindow

Size = tuple[int, int]  # height, width
Image = UInt8[np.ndarray, "_ _ 3"]
Polygons: TypeAlias = tuple[Float64[np.ndarray, "_ 2"], ...]
Shape: TypeAlias = MaskWindow | Polygons | None  # None: the mask of the data set, if there is one

OUTSIDE = "outside the image after a crop"


@dataclass(frozen=True)
class Objects:
    """n objects and crowd regions; all boxes are (x1, y1, x2, y2) in pixels of the scene.

    `boxes` is the visible part and `full` the box without the cuts of crops. `clip` is the part of the scene in which
    an object can be seen (a tile of a mosaic). `corners` are the places (x, y) of the first and the last corner of the
    grid of its mask, `grids` (height, width) pixels large: after a flip x1 > x2. `loose`: the box may be larger than
    the visible mask. `seen` is the share that other objects do not hide. `ignored` objects are neither positive nor
    negative.
    """

    rows: Int64[np.ndarray, " n"]  # in the data set
    boxes: Float32[np.ndarray, "n 4"]
    full: Float32[np.ndarray, "n 4"]
    clip: Float32[np.ndarray, "n 4"]
    corners: Float32[np.ndarray, "n 4"]
    grids: Int64[np.ndarray, "n 2"]
    loose: Bool[np.ndarray, " n"]
    seen: Float32[np.ndarray, " n"]
    ignored: Bool[np.ndarray, " n"]
    shapes: tuple[Shape, ...]

    @classmethod
    def of(
        cls,
        rows: Int64[np.ndarray, " n"],
        boxes: Float32[np.ndarray, "n 4"],
        ignored: Bool[np.ndarray, " n"],
        size: Size,
    ) -> Objects:
        """The objects of a whole image of the data set."""
        n, (height, width) = len(rows), size
        whole = np.tile(np.array([0, 0, width, height], np.float32), (n, 1))
        grids = np.tile(np.array(size, np.int64), (n, 1))
        ones = np.ones(n, np.float32)
        return cls(rows, boxes, boxes, whole, whole, grids, np.zeros(n, bool), ones, ignored, (None,) * n)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: Bool[np.ndarray, " n"] | Int64[np.ndarray, " m"]) -> Objects:
        indices = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        arrays = {name: getattr(self, name)[indices] for name in ARRAYS}
        return Objects(**arrays, shapes=tuple(self.shapes[index] for index in indices.tolist()))

    def joined(self, *others: Objects) -> Objects:
        every = (self, *others)
        arrays = {name: np.concatenate([getattr(each, name) for each in every]) for name in ARRAYS}
        return Objects(**arrays, shapes=tuple(shape for each in every for shape in each.shapes))

    def moved(self, scale: tuple[float, float], shift: tuple[float, float]) -> Objects:
        """After x' = scale * x + shift; scale and shift are (x, y). A negative scale mirrors."""
        factor, added = np.tile(np.array(scale, np.float64), 2), np.tile(np.array(shift, np.float64), 2)

        def points(values: Float32[np.ndarray, "n 4"]) -> Float32[np.ndarray, "n 4"]:
            return (values * factor + added).astype(np.float32)

        boxes, full, clip = (ordered(points(values)) for values in (self.boxes, self.full, self.clip))
        return replace(self, boxes=boxes, full=full, clip=clip, corners=points(self.corners))

    def within(self, size: Size) -> Objects:
        """Cut at the border of the image; an object that is outside has a box without area."""
        height, width = size
        clip = np.clip(self.clip, 0, np.array([width, height] * 2, np.float32))
        boxes = np.clip(self.boxes, clip[:, [0, 1, 0, 1]], clip[:, [2, 3, 2, 3]])
        return replace(self, clip=clip, boxes=boxes, loose=self.loose | (boxes != self.boxes).any(axis=1))


ARRAYS = tuple(field.name for field in fields(Objects) if field.name != "shapes")


@dataclass(frozen=True)
class Scene:
    """An image and its objects; `image` is None where only sizes and boxes are computed. `dropped` counts the objects
    that were removed, by reason.
    """

    size: Size
    image: UInt8[np.ndarray, "H W 3"] | None
    objects: Objects
    dropped: Mapping[str, int] = field(default_factory=dict)

    def with_objects(self, objects: Objects) -> Scene:
        return replace(self, objects=objects)

    def keep(self, kept: Bool[np.ndarray, " n"], reason: str) -> Scene:
        """Without the other objects, which are counted."""
        count = int((~kept).sum())
        if not count:
            return self
        dropped = {**self.dropped, reason: self.dropped.get(reason, 0) + count}
        return replace(self, objects=self.objects.take(kept), dropped=dropped)

    def within(self) -> Scene:
        """Objects cut at the border of the image; those outside are dropped."""
        cut = self.with_objects(self.objects.within(self.size))
        sides = cut.objects.boxes[:, 2:] - cut.objects.boxes[:, :2]
        return cut.keep(np.all(sides > 0, axis=1), OUTSIDE)


def ordered(points: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
    """Boxes from two opposite corners in any order."""
    pairs = points.reshape(-1, 2, 2)
    return np.concatenate((pairs.min(axis=1), pairs.max(axis=1)), axis=1)


def areas(boxes: Float32[np.ndarray, "n 4"]) -> Float64[np.ndarray, " n"]:
    sides = np.maximum(boxes[:, 2:].astype(np.float64) - boxes[:, :2], 0)
    return sides[:, 0] * sides[:, 1]


def placed(scene: Scene, content: Size, offset: tuple[int, int], canvas: Size, fill: int) -> Scene:
    """The scene resized to `content`, with its corner at `offset` (x, y) of a canvas of another size, which cuts it.

    Resizes, crops and pads are all of this kind. `fill` is the grey value of the rest of the canvas.
    """
    (height, width), (x, y) = scene.size, offset
    objects = scene.objects.moved((content[1] / width, content[0] / height), (float(x), float(y)))
    image = scene.image if scene.image is None else _placed_pixels(scene.image, content, offset, canvas, fill)
    return Scene(canvas, image, objects, scene.dropped).within()


def content_rows_and_columns(content: Size, offset: tuple[int, int], canvas: Size) -> tuple[slice, slice]:
    """The part of a canvas that a placed image covers."""
    (x, y), (height, width) = offset, content
    return (
        slice(min(max(y, 0), canvas[0]), max(min(y + height, canvas[0]), 0)),
        slice(min(max(x, 0), canvas[1]), max(min(x + width, canvas[1]), 0)),
    )


def _placed_pixels(image: Image, content: Size, offset: tuple[int, int], canvas: Size, fill: int) -> Image:
    if content == canvas and offset == (0, 0):
        return resize(image, content)
    if content[0] * content[1] > image.shape[0] * image.shape[1]:  # enlarges: only the pixels of the canvas
        factors = content[1] / image.shape[1], content[0] / image.shape[0]
        shift = [offset[axis] + 0.5 * factors[axis] - 0.5 for axis in (0, 1)]  # of the centres of pixels
        matrix = np.array([[factors[0], 0, shift[0]], [0, factors[1], shift[1]]])
        pixels = cv2.warpAffine(image, matrix, canvas[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        result = np.full((*canvas, 3), fill, np.uint8)
        part = content_rows_and_columns(content, offset, canvas)
        result[part] = pixels[part]
        return result
    small = resize(image, content)
    result = np.full((*canvas, 3), fill, np.uint8)
    rows, columns = content_rows_and_columns(content, offset, canvas)
    x, y = offset
    result[rows, columns] = small[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
    return result


def mirrored(scene: Scene, *, vertical: bool) -> Scene:
    """Left and right exchanged, or top and bottom."""
    height, width = scene.size
    scale, shift = ((1.0, -1.0), (0.0, float(height))) if vertical else ((-1.0, 1.0), (float(width), 0.0))
    image = scene.image
    if image is not None:
        image = np.ascontiguousarray(image[::-1] if vertical else image[:, ::-1])
    return replace(scene, image=image, objects=scene.objects.moved(scale, shift))
