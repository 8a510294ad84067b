"""Images in memory as RGB: what arrays, tensors and PIL images mean, and one clear error for everything else.

An array is (height, width, channels) and a tensor (channels, height, width), with 1, 3 or 4 channels, or (height,
width) if it is grey. Its type gives the range of its values: uint8 0 .. 255, uint16 0 .. 65535, floats 0 .. 1.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from resdet.coco.image_files import MAX_PIXELS, MAX_SIDE
from resdet.data.images.decode import (
    ImageError,
    check_sixteen_bit,
    decode_with_pillow,
    eight_bits,
    three_channels,
)
from resdet.errors import UserError
from resdet.text import shortened

ChannelOrder = Literal["rgb", "bgr"]
InMemory = np.ndarray | Tensor | Image.Image
CHANNELS = (1, 3, 4)
ACCEPTED = "a path, a PIL image, an array (height, width, 3), a tensor (3, height, width), or a list of these"


def check_channel_order(channels: str) -> None:
    """Raises UserError for anything but "rgb" and "bgr"."""
    if channels not in get_args(ChannelOrder):
        raise UserError(f"channels={channels!r} is not known; give 'rgb', or 'bgr' for arrays that OpenCV has read")


def as_rgb(
    image: InMemory, *, channels: ChannelOrder = "rgb", sixteen_bit: str = "error", name: str = "the image"
) -> UInt8[np.ndarray, "H W 3"]:
    """The image as RGB in 0 .. 255. An RGB array of uint8 in memory order that may be written is returned itself.

    `channels` is the order of the channels of an array or tensor; a PIL image knows its own, and its EXIF orientation
    is not applied: boxes are in the pixels that it has. Alpha is laid over white. `sixteen_bit`: "error", or "scale"
    to map 0 .. 65535 to 0 .. 255. `name` stands for the image in messages.

    Raises ImageError naming shape, type and remedy.
    """
    if isinstance(image, Image.Image):
        return _from_pillow(image, sixteen_bit, name)
    if isinstance(image, Tensor):
        array, what = _array_of(image, name)
    else:
        array, what = np.asarray(image), f"{name} (an array of shape {image.shape} and type {image.dtype})"
        _check_layout(image.shape, what, axis=-1, other="image.transpose(1, 2, 0)", batch="list(images)")
    _check_size(array.shape[0], array.shape[1], what)
    pixels = three_channels(_eight_bit_values(_in_rgb_order(array, channels), sixteen_bit, what))
    return np.require(pixels, requirements=("C", "W"))  # torch takes no array that must not be written


def _from_pillow(image: Image.Image, sixteen_bit: str, name: str) -> UInt8[np.ndarray, "H W 3"]:
    name = f"{name} (a PIL image of mode {image.mode} and size {image.size})"
    _check_size(image.height, image.width, name)
    if image.mode.startswith(("I", "F")):
        return three_channels(_eight_bit_values(np.asarray(image), sixteen_bit, name))
    return decode_with_pillow(image, name)


def _array_of(tensor: Tensor, name: str) -> tuple[np.ndarray, str]:
    """The tensor as an array (height, width, channels), and how messages name it."""
    kind = str(tensor.dtype).removeprefix("torch.")
    what = f"{name} (a tensor of shape {tuple(tensor.shape)} and type {kind})"
    if tensor.layout != torch.strided or tensor.device.type == "meta" or tensor.is_quantized:
        raise ImageError(f"{what}: is not a plain tensor with values; give a dense one")
    _check_layout(tensor.shape, what, axis=0, other="image.permute(2, 0, 1)", batch="list(images)")
    plain = tensor.detach().cpu()
    if plain.dtype == torch.bfloat16:  # numpy has no such type
        plain = plain.float()
    if plain.ndim == 3:
        plain = plain.permute(1, 2, 0)
    return plain.resolve_conj().resolve_neg().numpy(), what


def _check_layout(shape: tuple[int, ...], what: str, *, axis: int, other: str, batch: str) -> None:
    """Raises ImageError unless the shape is that of one grey, RGB or RGBA image with its channels on `axis`."""
    if len(shape) == 2 or (len(shape) == 3 and shape[axis] in CHANNELS):
        return
    if len(shape) == 3 and shape[-1 - axis] in CHANNELS:
        where = "first" if axis else "last"
        raise ImageError(f"{what}: its channels stand {where}; give {other}")
    if len(shape) == 4:
        raise ImageError(f"{what}: is a batch; give its images as a list, {batch}")
    expected = "(height, width, 3)" if axis else "(3, height, width)"
    raise ImageError(f"{what}: an image has the shape {expected}, with 1, 3 or 4 channels, or (height, width)")


def _check_size(height: int, width: int, what: str) -> None:
    if height == 0 or width == 0:
        raise ImageError(f"{what}: is empty; give an image with at least one pixel")
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        raise ImageError(f"{what}: has more than {MAX_SIDE} pixels a side or {MAX_PIXELS} in all; downscale it")


def _in_rgb_order(array: np.ndarray, channels: ChannelOrder) -> np.ndarray:
    if channels == "rgb" or array.ndim == 2 or array.shape[2] == 1:
        return array
    return array[:, :, [2, 1, 0, 3][: array.shape[2]]]


def _eight_bit_values(array: np.ndarray, sixteen_bit: str, what: str) -> UInt8[np.ndarray, "*shape"]:
    """The values in 0 .. 255, by the range that their type has."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        check_sixteen_bit(sixteen_bit, what)
        return eight_bits(array.astype(np.uint16))
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):  # also for NaN
            raise ImageError(
                f"{what}: its values, {low:.4g} to {high:.4g}, are not in 0 .. 1; give floats before any "
                "normalization, or values in 0 .. 255 as uint8: image.astype(np.uint8)"
            )
        return np.rint(array.astype(np.float32) * 255).astype(np.uint8)
    if array.dtype == np.bool_:
        raise ImageError(f"{what}: is a mask, not an image; give image.astype(np.uint8) * 255 if it is meant")
    raise ImageError(
        f"{what}: numbers of type {shortened(str(array.dtype), 40)} have no stated range; give uint8, such as "
        "image.astype(np.uint8) for values in 0 .. 255"
    )
