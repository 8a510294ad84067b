"""Draws masks on images: translucent, with an outline that is smooth at any scale."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from resdet.data.images.masks import MaskWindow

Color = tuple[int, int, int]

DARK: Color = (20, 22, 26)
FILL, RIM = 0.45, 0.55  # opacity inside an outline, and of the dark line around it


def paint_mask(canvas: Float32[np.ndarray, "H W 3"], mask: MaskWindow, color: Color, thickness: float) -> None:
    """Paints a mask in place, cut at the canvas; its outline, `thickness` pixels wide, has a dark border of one more
    pixel.
    """
    if not mask.pixels.any():
        return
    margin = int(np.ceil(thickness / 2)) + 2
    inside = np.pad(mask.pixels, margin)
    x, y = mask.x - margin, mask.y - margin
    seen = (slice(max(-y, 0), max(canvas.shape[0] - y, 0)), slice(max(-x, 0), max(canvas.shape[1] - x, 0)))
    distance, inside = _distance_to_edge(inside)[seen], inside[seen]
    region = canvas[max(y, 0) :, max(x, 0) :][: inside.shape[0], : inside.shape[1]]
    blend(region, color, FILL * inside)
    blend(region, DARK, RIM * _line(distance, thickness + 2) * (inside == 0))
    blend(region, color, _line(distance, thickness))


def _line(distance: Float32[np.ndarray, "h w"], thickness: float) -> Float32[np.ndarray, "h w"]:
    """The fraction of each pixel that a line along the edge covers."""
    return np.clip(thickness / 2 + 0.5 - distance, 0, 1)


def _distance_to_edge(inside: UInt8[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """The distance of each pixel's centre to the edge, which lies halfway between set and unset pixels."""
    there, here = (cv2.distanceTransform(side, cv2.DIST_L2, 5) for side in (inside, 1 - inside))
    return there + here - np.float32(0.5)


def resized(mask: MaskWindow, scale: float) -> MaskWindow:
    """The mask for an image that is `scale` times as large, with its corner rounded to a whole pixel."""
    if scale == 1 or not mask.pixels.size:
        return mask
    height, width = (max(1, round(side * scale)) for side in mask.pixels.shape)
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    cover = cv2.resize(mask.pixels.astype(np.float32), (width, height), interpolation=interpolation)
    if scale > 1:  # enlarged pixels would leave visible steps
        cover = cv2.GaussianBlur(cover, (0, 0), scale / 2, borderType=cv2.BORDER_REPLICATE)
    return MaskWindow((cover >= 0.5).astype(np.uint8), round(mask.x * scale), round(mask.y * scale))


def blend(region: Float32[np.ndarray, "h w 3"], color: Color, cover: Float[np.ndarray, "h w"]) -> None:
    """Blends a colour into a part of a picture, in place, with the opacities `cover`."""
    region += (np.array(color, dtype=np.float32) - region) * cover[..., None].astype(np.float32)
