"""Images in memory: every type, layout and source is the same picture, or one clear error that says what to give."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from resdet.data.images.decode import ImageError, read_image
from resdet.errors import UserError
from resdet.predict.pixels import as_rgb, check_channel_order

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = RGB[:, :, 0]
RGBA = np.dstack([RGB, np.full((6, 9), 255, np.uint8)])

# How the picture may lie in an array: the array, and the RGB picture that it is.
LAYOUTS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], np.ndarray]] = {
    "rgb": (lambda x: x[:, :, :3], RGB),
    "grey": (lambda x: x[:, :, 0], np.repeat(GREY[:, :, None], 3, 2)),
    "one channel": (lambda x: x[:, :, :1], np.repeat(GREY[:, :, None], 3, 2)),
    "rgba": (lambda x: x, RGB),
    "mirrored view": (lambda x: x[:, ::-1, :3], RGB[:, ::-1]),
    "reversed channels": (lambda x: x[:, :, 2::-1], RGB[:, :, ::-1]),
    "column order": (lambda x: np.asfortranarray(x[:, :, :3]), RGB),
    "every second pixel": (lambda x: x[::2, ::2, :3], RGB[::2, ::2]),
    "one pixel": (lambda x: x[:1, :1, :3], RGB[:1, :1]),
}
# The types that say their range, as a function from values in 0 .. 255.
TYPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "uint8": lambda x: x,
    "float32": lambda x: x.astype(np.float32) / 255,
    "float64": lambda x: x.astype(np.float64) / 255,
    "float16": lambda x: (x.astype(np.float32) / 255).astype(np.float16),
    "big-endian float": lambda x: (x / 255).astype(">f4"),
    "uint16": lambda x: x.astype(np.uint16) * 257,
    "big-endian uint16": lambda x: (x.astype(np.uint16) * 257).astype(">u2"),
}
TENSORS = {"uint8", "float32", "float64", "float16", "uint16"}


@pytest.mark.parametrize(("layout", "kind"), list(product(LAYOUTS, TYPES)))
def test_an_array_of_any_layout_and_type_is_the_same_picture(layout: str, kind: str) -> None:
    lay, wanted = LAYOUTS[layout]
    array = lay(TYPES[kind](RGBA))
    found = as_rgb(array, sixteen_bit="scale")
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous


@pytest.mark.parametrize(("layout", "kind"), list(product(LAYOUTS, sorted(TENSORS))))
def test_a_tensor_of_any_layout_and_type_is_the_same_picture(layout: str, kind: str) -> None:
    lay, wanted = LAYOUTS[layout]
    array = np.ascontiguousarray(lay(TYPES[kind](RGBA)))
    tensor = torch.from_numpy(array)
    channels_first = tensor.permute(2, 0, 1) if tensor.ndim == 3 else tensor
    np.testing.assert_array_equal(as_rgb(channels_first, sixteen_bit="scale"), wanted)


def test_a_tensor_may_need_gradients_or_be_of_bfloat16() -> None:
    tensor = torch.from_numpy(RGB).permute(2, 0, 1) / 255
    np.testing.assert_array_equal(as_rgb(tensor.requires_grad_()), RGB)
    half = torch.tensor([[[0.0, 1.0]]] * 3).bfloat16()
    np.testing.assert_array_equal(as_rgb(half), [[[0, 0, 0], [255, 255, 255]]])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr", "HSV", "PA"])
def test_a_pil_image_of_any_mode_is_what_its_file_is(mode: str) -> None:
    image = Image.fromarray(RGB).convert("P" if mode == "PA" else "RGB").convert(mode)
    wanted = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(as_rgb(image), wanted)


def test_an_array_in_memory_order_is_not_copied() -> None:
    assert as_rgb(RGB) is RGB


def test_an_array_that_must_not_be_written_is_copied() -> None:
    with Image.open(io.BytesIO(bmp(RGB))) as opened:
        for given in (np.frombuffer(RGB.tobytes(), np.uint8).reshape(RGB.shape), np.asarray(opened)):
            assert not given.flags.writeable
            found = as_rgb(given)
            assert found.flags.writeable
            np.testing.assert_array_equal(found, RGB)


def bmp(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "BMP")
    return file.getvalue()


@pytest.mark.parametrize("array", [RGB, np.dstack([RGB, np.full((6, 9), 128, np.uint8)])])
def test_bgr_is_a_keyword(array: np.ndarray) -> None:
    order = [2, 1, 0, 3][: array.shape[2]]
    np.testing.assert_array_equal(as_rgb(array[:, :, order], channels="bgr"), as_rgb(array))
    tensor = torch.from_numpy(array[:, :, order].copy()).permute(2, 0, 1)
    np.testing.assert_array_equal(as_rgb(tensor, channels="bgr"), as_rgb(array))


def test_bgr_does_not_change_what_knows_its_order() -> None:
    np.testing.assert_array_equal(as_rgb(Image.fromarray(RGB), channels="bgr"), RGB)
    np.testing.assert_array_equal(as_rgb(GREY, channels="bgr"), as_rgb(GREY))
    with pytest.raises(UserError, match="give 'rgb', or 'bgr'"):
        check_channel_order("gbr")


def test_what_lies_behind_a_transparent_pixel_is_white() -> None:
    clear = np.zeros((2, 2, 4), np.uint8)
    for given in (clear, clear / 255, Image.fromarray(clear), torch.from_numpy(clear).permute(2, 0, 1)):
        np.testing.assert_array_equal(as_rgb(given), np.full((2, 2, 3), 255))


def test_sixteen_bits_are_mapped_as_those_of_a_file(tmp_path: Any) -> None:
    deep = np.random.default_rng(1).integers(0, 2**16, (5, 7), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    wanted = read_image(tmp_path / "deep.png", sixteen_bit="scale")
    with Image.open(tmp_path / "deep.png") as opened:
        for given in (deep, torch.from_numpy(deep), opened):
            np.testing.assert_array_equal(as_rgb(given, sixteen_bit="scale"), wanted)
            with pytest.raises(ImageError, match=r"more than 8 bits a channel; .* set data.sixteen_bit=scale"):
                _ = as_rgb(given)


REFUSED: dict[str, tuple[Any, str]] = {
    "channels first": (RGB.transpose(2, 0, 1), r"shape \(3, 6, 9\) and type uint8.* give image.transpose\(1, 2, 0\)"),
    "channels last": (torch.zeros(6, 9, 3), r"shape \(6, 9, 3\) and type float32.* give image.permute\(2, 0, 1\)"),
    "a batch": (RGB[None], r"shape \(1, 6, 9, 3\).* is a batch; give its images as a list, list\(images\)"),
    "a batch of tensors": (torch.zeros(2, 3, 6, 9), r"\(2, 3, 6, 9\).* is a batch; .* list\(images\)"),
    "a row": (np.zeros(9, np.uint8), r"shape \(9,\).*an image has the shape \(height, width, 3\)"),
    "two channels": (np.zeros((6, 9, 2), np.uint8), r"shape \(6, 9, 2\).*\(height, width, 3\), with 1, 3 or 4"),
    "five channels": (torch.zeros(5, 6, 9), r"shape \(5, 6, 9\).*\(3, height, width\), with 1, 3 or 4"),
    "no rows": (np.zeros((0, 9, 3), np.uint8), r"shape \(0, 9, 3\).* is empty; give an image with at least one pixel"),
    "no columns": (torch.zeros(3, 6, 0), r"shape \(3, 6, 0\).* is empty"),
    "no pixels in Pillow": (Image.new("RGB", (0, 4)), r"size \(0, 4\).* is empty"),
    "a side too long": (np.zeros((1, 20_000), np.uint8), r"shape \(1, 20000\).*more than 16384 pixels a side"),
    "floats to 255": (RGB.astype(np.float32), r"type float32.* \d to 2\d\d, are not in 0 .. 1; .*astype\(np.uint8\)"),
    "normalized": (torch.full((3, 6, 9), -2.1), r"its values, -2.1 to -2.1, are not in 0 .. 1; give floats before"),
    "NaN": (np.full((6, 9, 3), np.nan), "values, nan to nan, are not in 0 .. 1"),
    "infinity": (np.full((6, 9, 3), np.inf), "values, inf to inf, are not in 0 .. 1"),
    "int64": (RGB.astype(np.int64), r"numbers of type int64 have no stated range; give uint8.*astype\(np.uint8\)"),
    "int8": (torch.zeros(3, 6, 9, dtype=torch.int8), "numbers of type int8 have no stated range"),
    "uint32": (RGB.astype(np.uint32), "numbers of type uint32 have no stated range"),
    "complex": (RGB.astype(np.complex64), "numbers of type complex64 have no stated range"),
    "texts": (np.full((6, 9, 3), "x"), "have no stated range"),
    "objects": (RGB.astype(object), "numbers of type object have no stated range"),
    "a mask": (RGB > 9, r"type bool.* is a mask, not an image; give image.astype\(np.uint8\) \* 255"),
    "32 bits in Pillow": (Image.new("I", (9, 6)), "mode I .*numbers of type int32 have no stated range"),
    "floats in Pillow": (Image.new("F", (9, 6), 7.0), "mode F .*values, 7 to 7, are not in 0 .. 1"),
    "a sparse tensor": (torch.zeros(3, 6, 9).to_sparse(), "is not a plain tensor with values"),
    "a tensor without values": (torch.zeros(3, 6, 9, device="meta"), "is not a plain tensor with values"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_anything_else_is_one_line_with_shape_type_and_remedy(case: str) -> None:
    image, message = REFUSED[case]
    with pytest.raises(ImageError, match=message) as refusal:
        _ = as_rgb(image, name="image 3 of the list")
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).startswith("image 3 of the list")
    assert any(remedy in str(refusal.value) for remedy in ("; give ", "with 1, 3 or 4 channels", "; downscale it"))


def test_a_pil_image_of_a_damaged_file_is_one_line(tmp_path: Any) -> None:
    path = tmp_path / "cut.jpg"
    Image.fromarray(np.tile(RGB, (30, 30, 1))).save(path)
    _ = path.write_bytes(path.read_bytes()[:2000])
    with (
        Image.open(path) as image,
        pytest.raises(ImageError, match=r"a PIL image of mode RGB.* is truncated or damaged"),
    ):
        _ = as_rgb(image)
