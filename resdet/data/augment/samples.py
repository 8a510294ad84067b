"""From an image of a data set to a training sample: by the keys of `data.augment`, or by its list of transforms.

Both are pure functions of (index, seed), so that a resume and any number of workers and processes see the same samples.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from resdet.config import DataConfig
from resdet.data.augment.draw import Draw, Transform, closed, images_of, needs_masks, reads_boxes
from resdet.data.augment.scene import Objects, Scene, Size, areas
from resdet.data.augment.shapes import Masks
from resdet.data.augment.table import KEY, transforms_of
from resdet.data.batches.small_objects import SMALLEST_SIDE, large_enough
from resdet.data.images.decode import ImageError, read_image, resize, resized_size
from resdet.data.images.kept import KeptImages
from resdet.data.images.transforms import Augmentation
from resdet.data.sets.coco import CocoDataset
from resdet.errors import UserError

MOST_IMAGES = 64  # that a list of transforms may put together
TRIED = 8  # images on which a list of transforms is tried before the first step
MASKLESS = "without a visible part of its mask"
TINY = f"under {SMALLEST_SIDE:g} pixel wide or high"


@dataclass(frozen=True)
class Sampled:
    """A sample: the image, and its objects by their rows of the data set, with boxes in pixels of the image."""

    image: UInt8[np.ndarray, "H W 3"]
    boxes: Float32[np.ndarray, "n 4"]
    rows: Int64[np.ndarray, " n"]
    ignored: Bool[np.ndarray, " n"]  # crowd regions, and objects of which too little is left
    masks: UInt8[np.ndarray, "n B B"] | None
    dropped: dict[str, int]  # removed objects, by reason


@runtime_checkable
class Samples(Protocol):
    """Where the samples of a data set come from."""

    def size(self, index: int, seed: int) -> Size:
        """The (height, width) of a sample, without reading its image."""
        ...

    def sample(self, index: int, seed: int, mask_resolution: int | None) -> Sampled:
        """Raises ImageError for an image that cannot be read."""
        ...

    def check(self) -> None:
        """Raises UserError for what can be known to fail before the first step."""
        ...

    def closed(self) -> Samples:
        """Those of the last part of a run, in which no images are put together (`data.augment.close_mix`)."""
        ...


@dataclass(frozen=True)
class KeyedSamples:
    """Resized to one of `short_sides`, then flipped and coloured by the augmentation, if there is one."""

    dataset: CocoDataset
    data: DataConfig
    short_sides: Sequence[int]
    augmentation: Augmentation | None = None
    kept: KeptImages | None = None

    def size(self, index: int, seed: int) -> Size:
        """The seed of a sample selects its short side."""
        short_side = self.short_sides[seed % len(self.short_sides)]
        return resized_size(*_size_of(self.dataset, index), short_side, self.data.augment.max_side)

    def sample(self, index: int, seed: int, mask_resolution: int | None) -> Sampled:
        dataset, size, original = self.dataset, self.size(index, seed), _size_of(self.dataset, index)
        image = resize(read(dataset, self.data, index, self.kept), size)
        scale = np.array(size) / np.array(original)
        rows = np.arange(dataset.offsets[index], dataset.offsets[index + 1])
        rows = rows[dataset.crowd[rows] | large_enough(dataset.boxes[rows], scale)]
        boxes = dataset.boxes[rows] * np.array([scale[1], scale[0]] * 2, np.float32)
        corners = np.array([[0, 0], size[::-1]], np.float32)
        if self.augmentation:
            changed = self.augmentation(image, boxes, seed=seed)
            image, boxes, corners = changed.image, changed.boxes, changed.corners
        objects = Objects.of(rows, boxes, dataset.crowd[rows], original)
        objects = replace(objects, corners=np.tile(corners.reshape(1, 4), (len(rows), 1)))
        return _sampled(Scene(size, image, objects), Masks.of(dataset), mask_resolution)

    def check(self) -> None:
        """The keys were checked with the config, and the objects with the data set (small_objects.py)."""

    def closed(self) -> KeyedSamples:
        return self


class ListedSamples:
    """Changed by the transforms that `data.augment.transforms` lists."""

    def __init__(self, dataset: CocoDataset, data: DataConfig, kept: KeptImages | None = None) -> None:
        """Raises UserError, one line, for a transform that does not exist or does not fit."""
        self.dataset, self.data, self.masks, self.kept = dataset, data, Masks.of(dataset), kept
        named = transforms_of(data.augment.transforms or [], self.masks)
        self.names = [name for name, _ in named]
        self.transforms = [transform for _, transform in named]
        together = math.prod(images_of(transform) for transform in self.transforms)
        if together > MOST_IMAGES:
            raise UserError(f"{KEY}: puts up to {together} images together, more than {MOST_IMAGES}; leave some out")
        for name, transform in named:
            if needs_masks(transform) and not dataset.segmentations.present().any():
                raise UserError(f"{KEY}: {name} needs masks, and {dataset.annotations} has none; leave it out")

    def size(self, index: int, seed: int) -> Size:
        return self._scene(index, seed, len(self.transforms), pixels=False).size

    def sample(self, index: int, seed: int, mask_resolution: int | None) -> Sampled:
        scene = self._scene(index, seed, len(self.transforms), pixels=True)
        return _sampled(finished(scene, self.masks, self.data.augment.min_visible), self.masks, mask_resolution)

    def check(self) -> None:
        """Tries the list before the first step: on the first images with objects, and on the smallest images.

        Raises UserError where a transform cannot change them, or where no object is left in any of them.
        """
        for side in (self.dataset.heights, self.dataset.widths):
            _ = self.size(int(np.argmin(side)), 0)
        tried = np.flatnonzero((self.dataset.objects_per_image() > 0) & ~self.dataset.missing)[:TRIED].tolist()
        left = [self._left(index, len(self.transforms)) for index in tried]
        if sum(left) or not tried:
            return
        for place, name in enumerate(self.names, start=1):
            if not any(self._left(index, place) for index in tried):
                raise UserError(
                    f"{KEY}: no object of the first {len(tried)} images is left after {name}, with "
                    f"{self.data.augment.min_visible:g} as data.augment.min_visible; change it or leave it out"
                )

    def closed(self) -> ListedSamples:
        if all(images_of(transform) == 1 for transform in self.transforms):
            return self
        last = copy.copy(self)
        last.transforms = [closed(transform) for transform in self.transforms]
        return last

    def _left(self, index: int, transforms: int) -> int:
        """How many objects to learn are left of an image after the first transforms; 1 if it cannot be read."""
        try:
            scene = self._scene(index, index, transforms, pixels=True)
        except ImageError:
            return 1
        return int((~finished(scene, self.masks, self.data.augment.min_visible).objects.ignored).sum())

    def _scene(self, index: int, seed: int, transforms: int, *, pixels: bool) -> Scene:
        """An image after the first transforms. Without pixels only what decides about its size is computed."""
        dataset = self.dataset
        size, rows = _size_of(dataset, index), np.arange(dataset.offsets[index], dataset.offsets[index + 1])
        image = read(dataset, self.data, index, self.kept) if pixels else None
        scene = Scene(size, image, Objects.of(rows, dataset.boxes[rows], dataset.crowd[rows], size))
        for place, transform in enumerate(self.transforms[:transforms]):
            generator = np.random.default_rng((seed, place))
            if generator.random() < transform.p and (pixels or self._decides_about_the_size(place)):
                partner = partial(self._partner, seed, place, pixels=pixels)
                augment = self.data.augment
                scene = transform(scene, Draw(generator, partner, self.masks, augment.short_side, augment.max_side))
        return scene

    def _partner(self, seed: int, place: int, number: int, *, pixels: bool) -> Scene:
        """Another image for the transform at a place of the list, after the transforms before it."""
        generator = np.random.default_rng((seed, place, number + 1))
        index, own_seed = int(generator.integers(len(self.dataset))), int(generator.integers(2**32))
        return self._scene(index, own_seed, place, pixels=pixels)

    def _decides_about_the_size(self, place: int) -> bool:
        """Of the image, itself or through the boxes that a later transform reads."""
        rest: list[Transform] = self.transforms[place:]
        return not rest[0].keeps_size or any(map(reads_boxes, rest))


def finished(scene: Scene, masks: Masks, min_visible: float) -> Scene:
    """Boxes that may be too large are taken from the masks, what is too small is dropped and counted, and an object of
    which too little is left is ignored.
    """
    objects = scene.objects
    visible = objects.seen * areas(objects.boxes) / np.maximum(areas(objects.full), 1e-9)
    objects = replace(objects, ignored=objects.ignored | (visible < min_visible))
    boxes, found = objects.boxes.copy(), np.ones(len(objects), bool)
    for index in np.flatnonzero(objects.loose & masks.present(objects)).tolist():
        tight = masks.tight_box(objects, index)
        found[index] = tight is not None
        boxes[index] = boxes[index] if tight is None else tight
    scene = scene.with_objects(replace(objects, boxes=boxes)).keep(found, MASKLESS)
    objects = scene.objects
    crowd = masks.crowd[objects.rows]
    return scene.keep(crowd | large_enough(objects.boxes, np.ones(2)), TINY)


def read(
    dataset: CocoDataset, data: DataConfig, index: int, kept: KeptImages | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """An image as its annotations describe it, decoded or kept from before."""
    path = dataset.path(index)
    decode = partial(read_image, path, *_size_of(dataset, index), sixteen_bit=data.sixteen_bit)
    return decode() if kept is None else kept.image(index, path, decode)


def _size_of(dataset: CocoDataset, index: int) -> Size:
    return int(dataset.heights[index]), int(dataset.widths[index])


def _sampled(scene: Scene, masks: Masks, mask_resolution: int | None) -> Sampled:
    assert scene.image is not None
    objects = scene.objects
    cells = None if mask_resolution is None else masks.in_frames(objects, mask_resolution)
    return Sampled(
        scene.image, objects.boxes, objects.rows, objects.ignored, cells, {k: v for k, v in scene.dropped.items() if v}
    )
