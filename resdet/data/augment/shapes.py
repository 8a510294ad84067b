"""The masks of a scene's objects: as pixels of the scene, their tight boxes, and in the frames of the boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Num, UInt8

from resdet.coco.segmentation import Segmentations
from resdet.data.augment.scene import Objects, Polygons, Shape, Size, ordered
from resdet.data.images.masks import EMPTY, MaskWindow, mask_window, polygon_window, window_coverage
from resdet.data.sets.coco import CocoDataset

ROUNDING = 1e-2  # pixels
FARTHEST = 1e6  # pixels: a point beyond is of no use to the rasterizer


@dataclass(frozen=True)
class Masks:
    """Finds the masks of objects, in the data set or where a transform left them. Crowd regions have none."""

    segmentations: Segmentations
    crowd: Bool[np.ndarray, " M"]

    @classmethod
    def of(cls, dataset: CocoDataset) -> Masks:
        return cls(dataset.segmentations, dataset.crowd)

    def present(self, objects: Objects) -> Bool[np.ndarray, " n"]:
        return np.array([self._has(objects, index) for index in range(len(objects))], bool)

    def _has(self, objects: Objects, index: int) -> bool:
        if objects.shapes[index] is not None:
            return True
        row, store = int(objects.rows[index]), self.segmentations
        stored = store.polygon_rows[row + 1] > store.polygon_rows[row] or store.run_rows[row + 1] > store.run_rows[row]
        return bool(stored and not self.crowd[row])

    def grid_window(self, objects: Objects, index: int) -> MaskWindow:
        """The mask in the pixels of its own grid; empty if there is none."""
        shape, (height, width) = objects.shapes[index], objects.grids[index].tolist()
        if isinstance(shape, MaskWindow):
            return shape
        if shape is not None:
            return polygon_window(shape, height, width)
        row = int(objects.rows[index])
        return EMPTY if self.crowd[row] else mask_window(self.segmentations, row, height, width)

    def polygons(self, objects: Objects, index: int) -> Polygons | None:
        """The mask as polygons in pixels of the scene; None if it is no polygon, or if a crop cuts it."""
        shape = objects.shapes[index]
        points = self.segmentations.polygons(int(objects.rows[index])) if shape is None else shape
        full, clip = objects.full[index], objects.clip[index]
        cut = (full[:2] < clip[:2] - ROUNDING).any() or (full[2:] > clip[2:] + ROUNDING).any()
        if isinstance(points, MaskWindow) or not points or cut:
            return None
        return tuple(in_scene(objects, index, polygon) for polygon in points)

    def window(self, objects: Objects, index: int) -> MaskWindow:
        """The visible mask in pixels of the scene: those of which it covers at least half."""
        grid = self.grid_window(objects, index)
        box = objects.boxes[index].astype(np.float64)
        low, high = np.floor(box[:2]), np.ceil(box[2:])
        if not grid.pixels.size:
            return EMPTY
        across, down = (high - low).astype(int).tolist()
        coverage = window_coverage(grid, in_grid(objects, index, np.concatenate((low, high))), (down, across))
        return MaskWindow((coverage >= 128).astype(np.uint8), int(low[0]), int(low[1]))

    def tight_box(self, objects: Objects, index: int) -> Float32[np.ndarray, "4"] | None:
        """The box of the visible mask, in pixels of the scene; None if no pixel of it is visible."""
        grid = self.grid_window(objects, index)
        clip = objects.clip[index].astype(np.float64)
        seen = ordered(in_grid(objects, index, clip)[None])[0] - np.tile((grid.x, grid.y), 2)
        left, top = np.maximum(np.floor(seen[:2] + 1e-3), 0).astype(int).tolist()
        right, bottom = np.ceil(seen[2:] - 1e-3).astype(int).tolist()
        pixels = grid.pixels[top : max(bottom, 0), left : max(right, 0)]
        rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
        if not len(rows):
            return None
        x, y = grid.x + left, grid.y + top
        corners = np.array([[x + columns[0], y + rows[0]], [x + columns[-1] + 1, y + rows[-1] + 1]], np.float64)
        box = ordered(in_scene(objects, index, corners).reshape(1, 4))[0]
        return np.clip(box, clip[[0, 1, 0, 1]], clip[[2, 3, 2, 3]]).astype(np.float32)

    def in_frames(self, objects: Objects, resolution: int) -> UInt8[np.ndarray, "n B B"]:
        """The coverage of each cell of its box by a mask, 0 .. 255; zeros for crowd regions and without a mask."""
        masks = np.zeros((len(objects), resolution, resolution), np.uint8)
        origin = objects.corners[:, [0, 1, 0, 1]]
        extent = np.tile(objects.corners[:, 2:] - objects.corners[:, :2], 2)  # x is negative if mirrored
        frames = (objects.boxes - origin) / extent * objects.grids[:, [1, 0, 1, 0]]
        for index, mask in enumerate(masks):
            window = EMPTY if self.crowd[objects.rows[index]] else self.grid_window(objects, index)
            if window.pixels.size:
                mask[:] = window_coverage(window, frames[index].astype(np.float64), (resolution, resolution))
        return masks


def in_grid(objects: Objects, index: int, box: Float64[np.ndarray, "4"]) -> Float64[np.ndarray, "4"]:
    """A box of the scene in the pixels of a mask's grid; x1 > x2 where the mask is mirrored."""
    corners, (height, width) = objects.corners[index].astype(np.float64), objects.grids[index].tolist()
    return (box - np.tile(corners[:2], 2)) / np.tile(corners[2:] - corners[:2], 2) * [width, height, width, height]


def in_scene(objects: Objects, index: int, points: Float[np.ndarray, "m 2"]) -> Float64[np.ndarray, "m 2"]:
    """Points (x, y) of a mask's grid in pixels of the scene."""
    corners, grid = objects.corners[index].astype(np.float64), objects.grids[index][::-1]
    return corners[:2] + points / grid * (corners[2:] - corners[:2])


def reshaped(objects: Objects, shapes: Mapping[int, Shape], size: Size) -> Objects:
    """The objects with some masks that are given in pixels of the scene, which has this size."""
    if not shapes:
        return objects
    corners, grids, all_shapes = objects.corners.copy(), objects.grids.copy(), list(objects.shapes)
    for index, shape in shapes.items():
        all_shapes[index] = shape
        corners[index], grids[index] = [0, 0, size[1], size[0]], size
    return replace(objects, shapes=tuple(all_shapes), corners=corners, grids=grids)


def mapped(matrix: Float64[np.ndarray, "3 3"], points: Num[np.ndarray, "m 2"]) -> Float64[np.ndarray, "m 2"]:
    """Points (x, y) after a projective map."""
    moved = np.concatenate((points, np.ones((len(points), 1))), axis=1) @ matrix.T
    return moved[:, :2] / moved[:, 2:]


def mapped_window(window: MaskWindow, matrix: Float64[np.ndarray, "3 3"], size: Size) -> MaskWindow:
    """A mask after a projective map, cut at an image of this size: the pixels of which it covers about half."""
    height, width = window.pixels.shape
    outline = np.array([[0, 0], [width, 0], [width, height], [0, height]])
    moved = mapped(matrix, outline + np.array([window.x, window.y]))
    low = np.clip(np.floor(moved.min(0)), 0, size[::-1]).astype(int)
    high = np.clip(np.ceil(moved.max(0)), 0, size[::-1]).astype(int)
    if (high <= low).any():
        return EMPTY
    # from the centres of the window's pixels to the centres of those of the result
    before = np.array([[1, 0, window.x + 0.5], [0, 1, window.y + 0.5], [0, 0, 1]])
    after = np.array([[1, 0, -low[0] - 0.5], [0, 1, -low[1] - 0.5], [0, 0, 1]])
    across, down = (high - low).tolist()
    soft = cv2.warpPerspective(window.pixels * 255, after @ matrix @ before, (across, down), flags=cv2.INTER_LINEAR)
    return MaskWindow((soft >= 128).astype(np.uint8), int(low[0]), int(low[1]))


def usable(polygons: Sequence[Float64[np.ndarray, "_ 2"]]) -> bool:
    """Whether all points are where the rasterizer can take them."""
    return all(bool((np.abs(polygon) <= FARTHEST).all()) for polygon in polygons)  # NaN is not


def bitmap(window: MaskWindow, size: Size) -> UInt8[np.ndarray, "H W"]:
    """A mask as an image of this size, which it may reach beyond."""
    pixels = np.zeros(size, np.uint8)
    rows = slice(max(window.y, 0), max(window.y + window.pixels.shape[0], 0))
    columns = slice(max(window.x, 0), max(window.x + window.pixels.shape[1], 0))
    part = pixels[rows, columns]
    top, left = max(-window.y, 0), max(-window.x, 0)
    part[:] = window.pixels[top : top + part.shape[0], left : left + part.shape[1]]
    return pixels


def window_of(pixels: UInt8[np.ndarray, "H W"]) -> MaskWindow:
    """The smallest window around the set pixels of an image."""
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    if not len(rows):
        return EMPTY
    top, left = int(rows[0]), int(columns[0])
    return MaskWindow(np.ascontiguousarray(pixels[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1]), left, top)
