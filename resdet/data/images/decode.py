"""Decodes image files to RGB; the header is checked before any pixel is decoded."""

from __future__ import annotations

import io
import math
import os
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from jaxtyping import UInt8, UInt16
from PIL import Image

from resdet.coco.image_files import MAX_PIXELS, MAX_SIDE
from resdet.coco.shards import read_member, shard_of
from resdet.data.images.orientation import PILLOW_ERRORS, remaining_turn, stored_size, turn, upright_size
from resdet.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
MAX_FILE_BYTES = 2**30
# Of libjpeg's warnings, those of data that are missing or cannot be meant (jerror.h).
LOST = ("premature end of", "bad Huffman code", "bad arithmetic code", "instead of RST")
ALPHA_BACKGROUND = (255, 255, 255)  # the background behind transparent pixels
MIXED_ROWS = 64  # rows that are mixed with it at a time

# Errors of decoding are reported by this module, with the file's name.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class ImageError(UserError):
    """An image file that cannot be used."""


def read_image(
    path: Path, height: int | None = None, width: int | None = None, *, sixteen_bit: str = "error"
) -> UInt8[np.ndarray, "H W 3"]:
    """The image as RGB, rotated according to its EXIF orientation.

    `height`, `width`: the size in the annotations, if there are any. It decides whether the orientation applies,
    because labelling tools differ; a file that has this size in neither orientation is an error. `sixteen_bit`:
    "error", "scale" or "auto" (see `eight_bits`). Grey becomes three equal channels, alpha is laid over
    ALPHA_BACKGROUND, CMYK is converted as Pillow does. Raises ImageError naming the file and the remedy; a file whose
    header gives too many pixels is rejected before decoding.
    """
    return decode_image(_read(path), path, height, width, sixteen_bit=sixteen_bit)


def decode_image(
    data: bytes, path: Path | str, height: int | None = None, width: int | None = None, *, sixteen_bit: str = "error"
) -> UInt8[np.ndarray, "H W 3"]:
    """The image in the bytes of a file, as `read_image` gives it; `path` stands for it in messages."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about unusual metadata and about sizes that are checked here
        header = _open(path, io.BytesIO(data))
        orientation = remaining_turn(header, height, width)
        if orientation is None:
            stored = stored_size(header)
            raise ImageError(
                f"{path}: is {stored[0]} high and {stored[1]} wide, but the annotation file says height {height}, "
                f"width {width}; correct the annotation file or restore the image"
            )
        if _is_deep(header, data):
            check_sixteen_bit(sixteen_bit, str(path))
            image = _decode_deep(path, data, sixteen_bit)
        elif _is_plain(header):
            image = _decode_jpeg(path, data) if header.format == "JPEG" else _decode(path, data, cv2.IMREAD_COLOR_RGB)
        else:
            image = decode_with_pillow(header, str(path))
    return turn(image, orientation)


def image_size(path: Path) -> tuple[int, int]:
    """The (height, width) of the upright image in a file, read from its header alone. Raises ImageError as `read_image`
    does.
    """
    with _opened(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return upright_size(_open(path, file))


def resized_size(height: int, width: int, short_side: int, max_side: int) -> tuple[int, int]:
    """The size with the wanted short side, unless the long side would exceed `max_side` (Detectron's rule)."""
    scale = min(short_side / min(height, width), max_side / max(height, width))
    return max(1, math.floor(height * scale + 0.5)), max(1, math.floor(width * scale + 0.5))


def resize(image: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """Bilinear interpolation to enlarge; area averages to reduce, which avoids aliasing."""
    height, width = size
    if image.shape[:2] == size:
        return image
    shrinks = height * width < image.shape[0] * image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def check_sixteen_bit(sixteen_bit: str, name: str) -> None:
    """Raises ImageError for an image with more than 8 bits a channel, unless `sixteen_bit` permits it."""
    if sixteen_bit == "error":
        raise ImageError(
            f"{name}: has more than 8 bits a channel; convert it to 8 bits, or set data.sixteen_bit=scale "
            "to map 0..65535 to 0..255, or auto for images that use fewer bits"
        )


def eight_bits(image: UInt16[np.ndarray, "*shape"], sixteen_bit: str) -> UInt8[np.ndarray, "*shape"]:
    """0 .. 65535 mapped linearly to 0 .. 255; with "auto" 0 .. 1023, 4095 or 16383, if no value is larger (cameras and
    microscopes store 10, 12 or 14 bits in 16), and values of 8 bits as they are.
    """
    bits = 16
    if sixteen_bit == "auto":
        bits = next(bits for bits in (8, 10, 12, 14, 16) if image.max(initial=0) < 2**bits)
    return np.rint(image / ((2**bits - 1) / 255)).astype(np.uint8)


def three_channels(image: UInt8[np.ndarray, "H W *C"]) -> UInt8[np.ndarray, "H W 3"]:
    """RGB from RGB, from RGBA (laid over ALPHA_BACKGROUND), or from grey, which becomes three equal channels."""
    if image.ndim == 2 or image.shape[2] == 1:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(image) if image.shape[2] == 3 else _over_background(image)


def decode_with_pillow(image: Image.Image, name: str) -> UInt8[np.ndarray, "H W 3"]:
    """The pixels of a PIL image of any mode with 8 bits a channel; Pillow's conversions are the reference for palettes,
    CMYK and one-bit images. Raises ImageError if they cannot be decoded.
    """
    try:
        if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
            return _over_background(np.asarray(image if image.mode == "RGBA" else image.convert("RGBA")))
        return np.array(image.convert("RGB"))
    except PILLOW_ERRORS:
        raise ImageError(f"{name}: is truncated or damaged; download or export it again") from None


def _read(path: Path) -> bytes:
    with _opened(path) as file:
        return file.read()


@contextmanager
def _opened(path: Path) -> Iterator[io.BytesIO | io.BufferedReader]:
    """A regular file, or a member of a shard, that is not empty and not too large. Raises ImageError, also if it cannot
    be read.
    """
    try:
        if shard_of(path) is not None:
            data = read_member(path)
            if not data:
                raise ImageError(f"{path}: the file is empty; download or export it again")
            yield io.BytesIO(data)
            return
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a named pipe must not block the reader
        with open(descriptor, "rb") as file:
            info = os.fstat(descriptor)
            if not stat.S_ISREG(info.st_mode):
                raise ImageError(f"{path}: is no regular file; give an image file")
            if info.st_size > MAX_FILE_BYTES:
                raise ImageError(f"{path}: {info.st_size} bytes are too many for an image; downscale it")
            if not info.st_size:
                raise ImageError(f"{path}: the file is empty; download or export it again")
            yield file
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}); restore the file or its permissions") from None
    except ValueError as error:
        raise ImageError(f"{str(path)!r}: no valid file name ({error})") from None


def _open(path: Path | str, file: io.BytesIO | io.BufferedReader) -> Image.Image:
    """Parses only the header."""
    try:
        header = Image.open(file, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"{path}: claims more than {MAX_PIXELS} pixels; refused before decoding") from None
    except PILLOW_ERRORS:
        _ = file.seek(0)
        raise ImageError(f"{path}: {_not_an_image(file.read(256))}; download or convert it again") from None
    width, height = header.size
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise ImageError(
            f"{path}: claims {width} x {height} pixels, more than {MAX_SIDE} a side or {MAX_PIXELS} in all; "
            "refused before decoding, downscale it"
        )
    return header


def _not_an_image(data: bytes) -> str:
    start = data[:256].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<svg")):
        return "is a web page or XML, not an image"
    return f"is not a readable {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image"


def _is_plain(header: Image.Image) -> bool:
    """Whether OpenCV and Pillow decode the file to the same bits; OpenCV is about twice as fast."""
    return (
        header.format in ("JPEG", "PNG", "WEBP") and header.mode in ("RGB", "L") and "transparency" not in header.info
    )


def _is_deep(header: Image.Image, data: bytes) -> bool:
    """Pillow reports 48-bit RGB as plain RGB, so this reads the bit depth in the file itself."""
    if header.mode.startswith(("I", "F")):
        return True
    if header.format == "PNG":
        return data[24] == 16
    bits = header.tag_v2.get(258, (8,)) if header.format == "TIFF" else (8,)  # pyright: ignore[reportAttributeAccessIssue]
    return max(bits if isinstance(bits, tuple) else (bits,)) > 8


def _decode_jpeg(path: Path | str, data: bytes) -> UInt8[np.ndarray, "H W 3"]:
    """Where data is missing, libjpeg goes on with pixels of its own, also if the file ends with its end marker. It
    warns of that, and OpenCV and Pillow do not pass the warning on. Other warnings mean no other pixels, for example of
    bytes that are too many, as some cameras write them.
    """
    try:
        return simplejpeg.decode_jpeg(data, colorspace="RGB")
    except ValueError as error:
        if any(lost in str(error) for lost in LOST):
            raise ImageError(f"{path}: is truncated or damaged; download or export it again") from None
    return _decode(path, data, cv2.IMREAD_COLOR_RGB)


def _decode(path: Path | str, data: bytes, mode: int) -> np.ndarray:
    try:
        _check_chunks(data)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), mode | cv2.IMREAD_IGNORE_ORIENTATION)
    except (cv2.error, EOFError):
        image = None
    if image is None:
        raise ImageError(f"{path}: is truncated or damaged; download or export it again")
    return image


def _check_chunks(data: bytes) -> None:
    """Raises EOFError for a PNG with a chunk that is longer than the rest of the file.

    OpenCV does not check the length: it allocates up to two gigabytes before it detects the end of the file.
    """
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return
    position, kind = 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data.ljust(position + 8, b"\0"), position)
        position += 12 + length  # length, kind, content, checksum
        if position > len(data):
            raise EOFError("a chunk ends behind the end of the file")


def _decode_deep(path: Path | str, data: bytes, sixteen_bit: str) -> UInt8[np.ndarray, "H W 3"]:
    image = _decode(path, data, cv2.IMREAD_UNCHANGED)
    if image.dtype != np.uint16 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (3, 4)):
        raise ImageError(f"{path}: pixels of type {image.dtype} have no stated range; convert it to 8 bits")
    small = eight_bits(image, sixteen_bit)
    if small.ndim == 3:
        small = small[:, :, [2, 1, 0, 3][: small.shape[2]]]  # OpenCV decodes to BGR
    return three_channels(small)


def _over_background(rgba: UInt8[np.ndarray, "H W 4"]) -> UInt8[np.ndarray, "H W 3"]:
    """Some rows at a time: the largest permitted image would take gigabytes in single precision."""
    mixed = np.empty((*rgba.shape[:2], 3), np.uint8)
    background = np.array(ALPHA_BACKGROUND, np.float32)
    for top in range(0, len(rgba), MIXED_ROWS):
        rows = rgba[top : top + MIXED_ROWS]
        alpha = rows[:, :, 3:].astype(np.float32) / 255
        mixed[top : top + MIXED_ROWS] = np.rint(rows[:, :, :3] * alpha + background * (1 - alpha))
    return mixed
