"""Transforms that put several images together. The others are drawn by the same pure function of the seed, and have
gone through the transforms that come before in the list, with draws of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, UInt8

from resdet.config.declare import PIXELS, Group, key
from resdet.data.augment.draw import Draw
from resdet.data.augment.scene import (
    Image,
    Objects,
    Scene,
    Size,
    content_rows_and_columns,
    placed,
)
from resdet.data.augment.shapes import Masks, bitmap, reshaped
from resdet.data.augment.single import GREY, fitted
from resdet.data.images.masks import EMPTY, MaskWindow

HIDDEN = "hidden by a pasted object"


@dataclass
class Mosaic(Group):
    """Four images meet at a point of a square (Bochkovskiy et al. 2020, YOLOv4; with the zoom and shift of
    ultralytics).
    """

    size: int | None = key(None, ge=8, le=10_000, help="pixels a side; null: the largest of data.augment.short_side")
    scale: list[float] = key(
        [0.5, 1.5], gt=0, le=100, length=(2, 2), help="an image's long side in sides of the square; one for all four"
    )
    shift: float = key(0.1, ge=0, le=1, help="of the whole, in sides of the square")
    alone: float = key(0.0, ge=0, le=1, help="probability that the image is alone on the square, at the same scale")
    fill: int = key(GREY, ge=0, le=255, help="grey value beside the images")
    p: float = key(1.0, ge=0, le=1, help="probability")

    keeps_size = False
    images = 4

    def __call__(self, scene: Scene, draw: Draw) -> Scene:
        side, zoom = draw.side(self.size), draw.uniform(self.scale)
        if draw.generator.random() < self.alone:
            return self._alone(scene, draw, side, zoom)
        # The junction is anywhere in the middle half of a canvas of two sides, of which one side is shown.
        junction = [(place - 0.5) * 2 * zoom + 0.5 for place in draw.generator.uniform(0.25, 0.75, 2).tolist()]
        x, y = (round(side * (place + draw.uniform((-self.shift, self.shift)))) for place in junction)
        result: Scene | None = None
        for tile, each in enumerate((scene, draw.partner(0), draw.partner(1), draw.partner(2))):
            height, width = content = fitted(each.size, side * zoom)
            offset = (x - width * (tile % 2 == 0), y - height * (tile < 2))
            part = placed(each, content, offset, (side, side), self.fill)
            result = part if result is None else _beside(result, part, content, offset)
        assert result is not None
        return result

    def closed(self) -> Mosaic:
        """The same square, at the same scale, with one image."""
        return replace(self, alone=1.0)

    def _alone(self, scene: Scene, draw: Draw, side: int, zoom: float) -> Scene:
        content = fitted(scene.size, side * zoom)
        y, x = (int(draw.generator.integers(min(0, side - length), max(0, side - length) + 1)) for length in content)
        return placed(scene, content, (x, y), (side, side), self.fill)


@dataclass
class Mixup(Group):
    """Mixes the pixels of two images and keeps the objects of both (Zhang et al. 2018; for detection, 2019)."""

    beta: float = key(32.0, gt=0, le=1000, help="the share of an image is drawn from Beta(this, this)")
    p: float = key(0.15, ge=0, le=1, help="probability")

    keeps_size = False
    images = 2

    def __call__(self, scene: Scene, draw: Draw) -> Scene:
        share = float(draw.generator.beta(self.beta, self.beta))
        other = draw.partner(0)
        canvas = (max(scene.size[0], other.size[0]), max(scene.size[1], other.size[1]))
        one, two = (placed(each, each.size, (0, 0), canvas, GREY) for each in (scene, other))
        image = None
        if one.image is not None and two.image is not None:
            mixed = one.image * np.float32(share) + two.image * np.float32(1 - share)
            image = np.rint(mixed).astype(np.uint8)
        return Scene(canvas, image, one.objects.joined(two.objects), _summed(one, two))

    def closed(self) -> Mixup:
        return replace(self, p=0.0)


@dataclass
class CopyPaste(Group):
    """Pastes objects of another image by their masks; what they hide is taken from the masks below (simple copy-paste,
    Ghiasi et al. 2021).
    """

    share: float = key(0.5, gt=0, le=1, help="probability of each object of the other image")
    most: int = key(100, ge=1, le=PIXELS, help="objects that are pasted")
    p: float = key(0.5, ge=0, le=1, help="probability")

    keeps_size = True
    images = 2
    needs_masks = True

    def __call__(self, scene: Scene, draw: Draw) -> Scene:
        other = draw.partner(0)
        other = placed(other, other.size, (0, 0), scene.size, GREY)
        drawn = draw.generator.random(len(other.objects)) < self.share
        eligible = np.flatnonzero(drawn & draw.masks.present(other.objects) & ~other.objects.ignored)
        pasted = other.objects.take(eligible[: self.most])
        if scene.image is None or other.image is None:
            return scene.with_objects(scene.objects.joined(pasted))
        cover = _union(pasted, scene.size, draw.masks)
        image = np.where(cover[:, :, None] > 0, other.image, scene.image)
        below = _hidden(replace(scene, image=image), cover, draw.masks)
        return below.with_objects(below.objects.joined(pasted))

    def closed(self) -> CopyPaste:
        return replace(self, p=0.0)


def _beside(scene: Scene, part: Scene, content: Size, offset: tuple[int, int]) -> Scene:
    """A scene with another one, placed on the same canvas, laid over it."""
    image: Image | None = scene.image
    if image is not None and part.image is not None:
        where = content_rows_and_columns(content, offset, scene.size)
        image[where] = part.image[where]
    return Scene(scene.size, image, scene.objects.joined(part.objects), _summed(scene, part))


def _summed(one: Scene, two: Scene) -> dict[str, int]:
    return {reason: one.dropped.get(reason, 0) + two.dropped.get(reason, 0) for reason in (*one.dropped, *two.dropped)}


def _union(objects: Objects, size: Size, masks: Masks) -> UInt8[np.ndarray, "H W"]:
    cover = np.zeros(size, np.uint8)
    for index in range(len(objects)):
        cover |= bitmap(masks.window(objects, index), size)
    return cover


def _hidden(scene: Scene, cover: UInt8[np.ndarray, "H W"], masks: Masks) -> Scene:
    """The objects below a cover: masks without the hidden pixels, and the share that is still seen of each. An object
    whose mask is hidden completely is dropped.
    """
    objects = scene.objects
    shapes, seen = dict[int, MaskWindow](), objects.seen.copy()
    present = masks.present(objects)
    for index, box in enumerate(objects.boxes):
        x1, y1 = np.floor(box[:2]).astype(int).tolist()
        x2, y2 = np.ceil(box[2:]).astype(int).tolist()
        above = cover[y1:y2, x1:x2]
        if not above.any():
            continue
        if not present[index]:
            seen[index] *= 1 - above.mean()
            continue
        window = masks.window(objects, index)
        before = int(window.pixels.sum())
        left = window.pixels & (1 - above) if before else window.pixels
        shapes[index] = MaskWindow(left, window.x, window.y) if left.any() else EMPTY
        seen[index] *= left.sum() / max(before, 1)
    touched: Bool[np.ndarray, " n"] = np.isin(np.arange(len(objects)), list(shapes))
    changed = replace(reshaped(objects, shapes, scene.size), seen=seen, loose=objects.loose | touched)
    gone = np.array(
        [isinstance(shapes.get(index), MaskWindow) and not shapes[index].pixels.size for index in range(len(objects))],
        bool,
    )
    return scene.with_objects(changed).keep(~gone, HIDDEN)
