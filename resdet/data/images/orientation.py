"""EXIF orientation: computes the rotation that a decoded image still needs to agree with its annotations."""

from __future__ import annotations

import struct

import numpy as np
from jaxtyping import UInt8
from PIL import Image

TAG = 0x0112
UPRIGHT = 1
INVERSE = {6: 8, 8: 6}  # a quarter turn; every other orientation is its own inverse
# The exceptions that Pillow raises for broken files, besides OSError.
PILLOW_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, OverflowError, EOFError, ZeroDivisionError,
    AttributeError, RuntimeError, AssertionError, MemoryError, struct.error,
)  # fmt: skip


def stored_size(header: Image.Image) -> tuple[int, int]:
    """The (height, width) of the pixels as stored in the file. For a TIFF, Pillow gives the upright size."""
    height, width = header.height, header.width
    return (width, height) if _turned_by_decoders(header) and _orientation(header) >= 5 else (height, width)


def upright_size(header: Image.Image) -> tuple[int, int]:
    """The (height, width) of the upright image, of which no pixel is decoded.

    A PNG whose orientation stands behind its pixels counts as upright, since Pillow would decode it to find out.
    """
    height, width = stored_size(header)
    if header.format == "PNG" and "exif" not in header.info:
        return height, width
    return (width, height) if _orientation(header) >= 5 else (height, width)


def remaining_turn(header: Image.Image, height: int | None, width: int | None) -> int | None:
    """EXIF's number, 1 .. 8, of the transformation that the decoded image still needs.

    `header`: the file as Pillow opened it, before its pixels are read. `height`, `width`: the size in the annotations,
    if there are any. If it is the size of the stored pixels and not of the upright image, the annotations refer to the
    stored pixels. None: the size fits in neither orientation.

    Pillow and OpenCV apply the orientation tag of a TIFF while they decode it, and decode JPEG, PNG and WebP as stored.
    """
    stored = stored_size(header)
    annotated = stored if height is None or width is None else (height, width)
    if annotated not in (stored, stored[::-1]):
        return None  # before the metadata is read, because for some PNGs Pillow decodes all pixels to find it
    orientation = _orientation(header)
    done = orientation if _turned_by_decoders(header) else UPRIGHT
    upright = stored[::-1] if orientation >= 5 else stored
    if height is None or upright == annotated:
        return UPRIGHT if done == orientation else orientation
    if stored == annotated:
        return INVERSE.get(done, done)
    return None


def turn(image: UInt8[np.ndarray, "H W C"], orientation: int) -> UInt8[np.ndarray, "h w C"]:
    """The upright image, for an image with this orientation."""
    if orientation >= 5:
        # 5 mirrors at the main diagonal; together with the flips below it gives 6, 7 and 8
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def _turned_by_decoders(header: Image.Image) -> bool:
    return header.format == "TIFF"


def _orientation(header: Image.Image) -> int:
    """For a TIFF only its own tag counts: Pillow would apply an orientation in XMP, and OpenCV would not."""
    if header.format == "TIFF":
        _ = header.info.pop("xmp", None)
    try:
        orientation = header.getexif().get(TAG, UPRIGHT)
    except PILLOW_ERRORS:
        return UPRIGHT
    return orientation if orientation in range(1, 9) else UPRIGHT
