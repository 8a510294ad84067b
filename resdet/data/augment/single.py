"""Transforms of one image: sizes, crops, flips and colours. Each is a row of the table in table.py."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from jaxtyping import Bool, Float32, Float64

from resdet.config.declare import PIXELS, Group, key
from resdet.data.augment.draw import Draw
from resdet.data.augment.scene import Scene, Size, areas, mirrored, placed
from resdet.data.images.decode import resized_size
from resdet.data.images.library import A

GREY = 114  # the colour beside an image, about the mean of photographs


@dataclass
class ShortSide(Group):
    """Resizes; the short side is drawn from a list or a range (Detectron2's ResizeShortestEdge)."""

    sizes: list[int] | None = key(
        None, ge=1, le=PIXELS, length=(1, 1000), help="one of these, in pixels; null: data.augment.short_side"
    )
    range: list[int] | None = key(
        None, ge=1, le=PIXELS, length=(2, 2), help="or from the first to the second, in pixels"
    )
    factors: list[float] | None = key(
        None, gt=0, le=100, length=(1, 1000), help="the size is multiplied by one of these"
    )
    max_side: int | None = key(None, ge=1, le=PIXELS, help="of the long side, in pixels; null: data.augment.max_side")
    p: float = key(1.0, ge=0, le=1, help="probability")

    keeps_size = False

    def __call__(self, scene: Scene, draw: Draw) -> Scene:
        sizes = draw.short_sides if self.sizes is None else self.sizes
        if self.range is None:
            side = sizes[int(draw.generator.integers(len(sizes)))]
        else:
            side = int(draw.generator.integers(min(self.range), max(self.range) + 1))
        if self.factors is not None:
            side = max(1, round(side * self.factors[int(draw.generator.integers(len(self.factors)))]))
        size = resized_size(*scene.size, side, draw.max_side if self.max_side is None else self.max_side)
        return placed(scene, size, (0, 0), size, GREY)


@dataclass
class LargeScaleJitter(Group):
    """Resizes by a factor drawn from a wide range, then crops and pads to a square (Ghiasi et al. 2021)."""

    size: int | None = key(None, ge=8, le=10_000, help="pixels a side; null: the largest of data.augment.short_side")
    scale: list[float] = key([0.1, 2.0], gt=0, le=100, length=(2, 2), help="1: the image just fits into the square")
    fill: int = key(GREY, ge=0, le=255, help="grey value beside the image")
    p: float = key(1.0, ge=0, le=1, help="probability")

    keeps_size = False

    def __call__(self, scene: Scene, draw: Draw) -> Scene:
        side = draw.side(self.size)
        content = fitted(scene.size, side * draw.uniform(self.scale))
        y, x = (min(0, -int(draw.generator.integers(0, max(0, length - side) + 1))) for length in content)
        return placed(scene, content, (x, y), (side, side), self.fill)


@dataclass
class Expand(Group):
    """Puts the image on a larger canvas, so that objects become small (zoom out: SSD, Liu et al. 2016)."""

    ratio: list[float] = key([1.0, 4.0], ge=1, le=100, length=(2, 2), help="the canvas' sides in those of the image")
    fill: int = key(GREY, ge=0, le=255, help="grey value beside the image")
    p: float = key(0.5, ge=0, le=1, help="probability")

    keeps_size = False

    def __call__(self, scene: Scene, draw: Draw) -> Scene:
        ratio = draw.uniform(self.ratio)
        height, width = (max(length, int(length * ratio)) for length in scene.size)
        y, x = (
            int(draw.generator.integers(0, more - less + 1))
            for more, less in zip((height, width), scene.size, strict=True)
        )
        return placed(scene, scene.size, (x, y), (height, width), self.fill)


@dataclass
class MinIoUCrop(Group):
    """Crops so that at least one object overlaps the crop by an IoU drawn from a list (SSD, Liu et al. 2016). Objects
    whose centre is outside the crop are ignored.
    """

    ious: list[float] = key(
        [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0], ge=0, le=1, length=(1, 100), help="one is drawn; 1: no crop"
    )
    scale: list[float] = key([0.3, 1.0], gt=0, le=1, length=(2, 2), help="the crop's sides in those of the image")
    most_elongated: float = key(2.0, ge=1, le=100, help="a crop's long side in its short sides")
    trials: int = key(40, ge=1, le=10_000, help="crops that are drawn until one fits")
    p: float = key(1.0, ge=0, le=1, help="probability")

    keeps_size = False
    reads_boxes = True

    def __call__(self, scene: Scene, draw: Draw) -> Scene:
        wanted = self.ious[int(draw.generator.integers(len(self.ious)))]
        boxes = scene.objects.boxes[~scene.objects.ignored]
        if wanted >= 1 or not len(boxes):
            return scene
        for _ in range(self.trials):
            crop = self._drawn(scene.size, draw)
            if crop is None:
                continue
            inside = _centres_inside(boxes, crop)
            if inside.any() and _ious(boxes[inside], crop).max() >= wanted:
                return self._cropped(scene, crop)
        return scene

    def _drawn(self, size: Size, draw: Draw) -> Float32[np.ndarray, "4"] | None:
        height, width = (max(1, int(length * draw.uniform(self.scale))) for length in size)
        if max(height, width) > self.most_elongated * min(height, width):
            return None
        y, x = (
            int(draw.generator.integers(0, more - less + 1)) for more, less in zip(size, (height, width), strict=True)
        )
        return np.array([x, y, x + width, y + height], np.float32)

    def _cropped(self, scene: Scene, crop: Float32[np.ndarray, "4"]) -> Scene:
        x1, y1, x2, y2 = crop.astype(int).tolist()
        objects = scene.objects
        ignored = objects.ignored | ~_centres_inside(objects.boxes, crop)
        scene = scene.with_objects(replace(objects, ignored=ignored))
        return placed(scene, scene.size, (-x1, -y1), (y2 - y1, x2 - x1), GREY)


@dataclass
class HorizontalFlip(Group):
    """Exchanges left and right."""

    p: float = key(0.5, ge=0, le=1, help="probability")

    keeps_size = True

    def __call__(self, scene: Scene, draw: Draw) -> Scene:
        return mirrored(scene, vertical=False)


@dataclass
class VerticalFlip(Group):
    """Exchanges top and bottom."""

    p: float = key(0.5, ge=0, le=1, help="probability")

    keeps_size = True

    def __call__(self, scene: Scene, draw: Draw) -> Scene:
        return mirrored(scene, vertical=True)


@dataclass
class ColourJitter(Group):
    """Changes brightness, contrast, saturation and hue, in an order that is drawn too (torchvision's ColorJitter)."""

    brightness: float = key(0.4, ge=0, le=1, help="the factor is drawn from 1 - this to 1 + this")
    contrast: float = key(0.4, ge=0, le=1, help="the factor is drawn from 1 - this to 1 + this")
    saturation: float = key(0.5, ge=0, le=1, help="the factor is drawn from 1 - this to 1 + this")
    hue: float = key(0.05, ge=0, le=0.5, help="of the whole circle, to either side")
    p: float = key(0.5, ge=0, le=1, help="probability")

    keeps_size = True

    def __call__(self, scene: Scene, draw: Draw) -> Scene:
        seed = int(draw.generator.integers(2**32))
        if scene.image is None:
            return scene
        jitter = _jitter(self.brightness, self.contrast, self.saturation, self.hue)
        jitter.set_random_seed(seed)
        return replace(scene, image=jitter(image=scene.image)["image"])


@cache
def _jitter(brightness: float, contrast: float, saturation: float, hue: float) -> A.Compose:
    factors = ((1 - share, 1 + share) for share in (brightness, contrast, saturation))
    return A.Compose([A.ColorJitter(*factors, hue=(-hue, hue), p=1.0)])


def fitted(size: Size, side: float) -> Size:
    """The size of an image scaled so that its long side has `side` pixels."""
    scale = side / max(size)
    return max(1, math.floor(size[0] * scale + 0.5)), max(1, math.floor(size[1] * scale + 0.5))


def _centres_inside(boxes: Float32[np.ndarray, "n 4"], crop: Float32[np.ndarray, "4"]) -> Bool[np.ndarray, " n"]:
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.all((centres > crop[:2]) & (centres < crop[2:]), axis=1)


def _ious(boxes: Float32[np.ndarray, "n 4"], crop: Float32[np.ndarray, "4"]) -> Float64[np.ndarray, " n"]:
    low, high = np.maximum(boxes[:, :2], crop[:2]), np.minimum(boxes[:, 2:], crop[2:])
    common = areas(np.concatenate((low, high), axis=1))
    return common / (areas(boxes) + areas(crop[None]) - common)
