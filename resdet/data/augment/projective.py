"""Moves boxes and masks along a map that keeps lines straight: rotation, shear, perspective."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Float64

from resdet.data.augment.scene import Image, Objects, Scene, Size
from resdet.data.augment.shapes import Masks, Shape, mapped, mapped_window, reshaped, usable

STRAIGHT = 1e-2  # pixels over the width of an image: less is rounding


def projected(scene: Scene, matrix: Float64[np.ndarray, "3 3"], size: Size, image: Image | None, masks: Masks) -> Scene:
    """The scene after a map of its points (x, y, 1), with the image that was mapped already and has this `size`.

    A map along the axes is exact for boxes and keeps masks where they are. Otherwise polygons move point by point,
    other masks and those that a crop has cut move pixel by pixel, and a box becomes the one around its corners, until
    it is taken from the mask at the end.
    """
    along = _along_the_axes(matrix, scene.size)
    if along:
        return replace(scene, size=size, image=image, objects=scene.objects.moved(*along)).within()
    objects, shapes = scene.objects, dict[int, Shape]()
    for index in np.flatnonzero(masks.present(objects)).tolist():
        shapes[index] = _projected_mask(objects, index, matrix, size, masks)
    whole = np.tile(np.array([0, 0, size[1], size[0]], np.float32), (len(objects), 1))
    moved = replace(
        objects,
        boxes=_around(matrix, objects.boxes),
        full=_around(matrix, objects.full),
        clip=whole,
        loose=np.ones(len(objects), bool),
    )
    return replace(scene, size=size, image=image, objects=reshaped(moved, shapes, size)).within()


def _projected_mask(
    objects: Objects, index: int, matrix: Float64[np.ndarray, "3 3"], size: Size, masks: Masks
) -> Shape:
    polygons = masks.polygons(objects, index)
    if polygons is not None:
        moved = tuple(mapped(matrix, polygon) for polygon in polygons)
        if usable(moved):
            return moved
    window = masks.window(objects, index)
    return mapped_window(window, matrix, size) if window.pixels.size else window


def _around(matrix: Float64[np.ndarray, "3 3"], boxes: Float32[np.ndarray, "n 4"]) -> Float32[np.ndarray, "n 4"]:
    """The boxes around the mapped corners of boxes."""
    corners = mapped(matrix, boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)).reshape(-1, 4, 2)
    return np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1).astype(np.float32)


def _along_the_axes(
    matrix: Float64[np.ndarray, "3 3"], size: Size
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Scale and shift (x, y) of a map that is nothing more."""
    height, width = size
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    moved = mapped(matrix, corners)
    scale = (moved[2] - moved[0]) / [width, height]
    straight = np.abs(moved[0] + corners * scale - moved).max() < STRAIGHT
    if not straight or not scale.all():
        return None
    return (float(scale[0]), float(scale[1])), (float(moved[0, 0]), float(moved[0, 1]))
