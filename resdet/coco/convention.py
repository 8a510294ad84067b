"""Detects boxes that are written as (x1, y1, x2, y2) although COCO requires (x, y, width, height)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from resdet.errors import UserError

FEWEST = 3  # boxes: a single box proves nothing
SHARE = 0.2  # of all boxes

LOOKS_LIKE_CORNERS = (
    "boxes exceed their image, and all of those fit when read as corners: field 'bbox' looks like xyxy; "
    "COCO wants [x, y, width, height]"
)


def boxes_like_corners(
    xywh: Float64[np.ndarray, "n 4"], heights: Int64[np.ndarray, " n"], widths: Int64[np.ndarray, " n"]
) -> int:
    """The number of boxes that exceed their image, if they are many and all of these fit as corners; else 0."""
    x, y, right, bottom = xywh.T
    exceeds = (x + right > widths + 1) | (y + bottom > heights + 1)
    fits = (right > x) & (bottom > y) & (right <= widths) & (bottom <= heights)
    count = int(exceeds.sum())
    return count if count >= FEWEST and count > SHARE * len(xywh) and fits[exceeds].all() else 0


def check_convention(
    source: str,
    xywh: Float64[np.ndarray, "M 4"],
    heights: Int64[np.ndarray, " M"],
    widths: Int64[np.ndarray, " M"],
) -> None:
    """Raises UserError if many boxes look like x1, y1, x2, y2, or like fractions of the image."""
    if len(xywh) < FEWEST:
        return
    if count := boxes_like_corners(xywh, heights, widths):
        raise UserError(f"{source}: {count} of {len(xywh)} {LOOKS_LIKE_CORNERS}")
    if (xywh <= 1).all() and (xywh[:, 2:] > 0).any():
        raise UserError(
            f"{source}: all boxes lie within one pixel: field 'bbox' looks like fractions of the image; "
            "multiply by width and height, COCO wants pixels"
        )
