"""Instance masks that were checked, packed into a few flat arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64, UInt32
from pycocotools import mask as pycocotools_mask

from resdet.coco.groups import row_offsets, take_groups, take_members
from resdet.coco.run_lengths import RunLengths, compress

coco_mask: Any = pycocotools_mask  # its type annotations do not accept polygons


@dataclass(frozen=True)
class Segmentations:
    """The masks of M annotations: each is one or more polygons, or run lengths, or nothing. M1 = M + 1, P1 = P + 1.

    Annotation m owns polygons `polygon_rows[m]:polygon_rows[m + 1]`, polygon p the vertices
    `vertex_rows[p]:vertex_rows[p + 1]`, and annotation m the runs `run_rows[m]:run_rows[m + 1]` (background first, down
    the columns, height x width in all). Vertices are (x, y) in fifths of a pixel of the original image, rounded as in
    pycocotools' rasterizer, so that it sets the same pixels as for the numbers in the file.
    """

    polygon_rows: Int64[np.ndarray, " M1"]
    vertex_rows: Int64[np.ndarray, " P1"]
    fifths: Int32[np.ndarray, "V 2"]
    run_rows: Int64[np.ndarray, " M1"]
    runs: UInt32[np.ndarray, " S"]

    def __len__(self) -> int:
        return len(self.polygon_rows) - 1

    def polygons(self, index: int) -> list[Float64[np.ndarray, "n 2"]]:
        """The polygons of an annotation in pixels."""
        rows = range(self.polygon_rows[index], self.polygon_rows[index + 1])
        return [as_pixels(self.fifths[self.vertex_rows[row] : self.vertex_rows[row + 1]]) for row in rows]

    def run_lengths(self, index: int) -> UInt32[np.ndarray, " n"]:
        return self.runs[self.run_rows[index] : self.run_rows[index + 1]]

    def present(self) -> Bool[np.ndarray, " M"]:
        return (np.diff(self.polygon_rows) > 0) | (np.diff(self.run_rows) > 0)

    def encoded(self, index: int, height: int, width: int) -> RunLengths:
        """The mask of an annotation (which must have one) for an evaluator; `height` and `width` are the size of its
        image.
        """
        runs = self.run_lengths(index)
        if len(runs):
            return RunLengths(size=[height, width], counts=compress([runs.astype(np.int64)])[0])
        polygons = [polygon.ravel().tolist() for polygon in self.polygons(index)]
        return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))

    def take(self, rows: Int64[np.ndarray, " m"]) -> Segmentations:
        polygon_rows, polygons = take_groups(self.polygon_rows, rows)
        vertex_rows, fifths = take_members(self.fifths, self.vertex_rows, polygons)
        run_rows, runs = take_members(self.runs, self.run_rows, rows)
        return Segmentations(polygon_rows, vertex_rows, fifths, run_rows, runs)

    def first(self, count: int) -> Segmentations:
        """The masks of the first annotations, in the same memory."""
        polygon_rows, run_rows = self.polygon_rows[: count + 1], self.run_rows[: count + 1]
        vertex_rows = self.vertex_rows[: polygon_rows[-1] + 1]
        return Segmentations(
            polygon_rows, vertex_rows, self.fifths[: vertex_rows[-1]], run_rows, self.runs[: run_rows[-1]]
        )

    def take_but(self, rows: Int64[np.ndarray, " m"], dropped: Bool[np.ndarray, " M"]) -> Segmentations:
        """Those of the chosen annotations, in the given order, of which the dropped ones have no mask."""
        kept = ~dropped[rows]
        masks = self.take(rows[kept])
        polygon_counts, run_counts = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
        polygon_counts[kept], run_counts[kept] = np.diff(masks.polygon_rows), np.diff(masks.run_rows)
        return replace(masks, polygon_rows=row_offsets(polygon_counts), run_rows=row_offsets(run_counts))


def as_pixels(fifths: Int32[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
    """Coordinates that the rasterizer, which computes int(5 x + 0.5), rounds to the same fifths again."""
    return np.where(fifths < 0, fifths - 0.75, fifths) / 5  # int() rounds towards zero
