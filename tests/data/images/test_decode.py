"""Image files become RGB arrays, or an error that names them."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import struct
import time
import tracemalloc
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from resdet.data.images.decode import ImageError, eight_bits, read_image, resize, resized_size, three_channels

HEIGHT, WIDTH = 20, 30


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # pyright: ignore[reportArgumentType]
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff"])
def test_lossless_files_give_their_pixels(tmp_path: Path, rgb: np.ndarray, suffix: str) -> None:
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(rgb))
    np.testing.assert_array_equal(read_image(path, HEIGHT, WIDTH), rgb)


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_lossy_files_decode_as_pillow_does(tmp_path: Path, rgb: np.ndarray, suffix: str, mode: str) -> None:
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(rgb).convert(mode))
    np.testing.assert_allclose(read_image(path, HEIGHT, WIDTH), np.asarray(Image.open(path).convert("RGB")), atol=1)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK"])
def test_other_modes_become_three_channels_as_pillow_converts(tmp_path: Path, rgb: np.ndarray, mode: str) -> None:
    path = saved(tmp_path / f"a.{'tiff' if mode == 'CMYK' else 'png'}", Image.fromarray(rgb).convert(mode))
    np.testing.assert_array_equal(read_image(path, HEIGHT, WIDTH), np.asarray(Image.open(path).convert("RGB")))


def test_a_cmyk_jpeg_is_converted(tmp_path: Path, rgb: np.ndarray) -> None:
    path = saved(tmp_path / "a.jpg", Image.fromarray(rgb).convert("CMYK"))
    np.testing.assert_array_equal(read_image(path, HEIGHT, WIDTH), np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_over_white(tmp_path: Path, rgb: np.ndarray, mode: str) -> None:
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[:, :10], alpha[:, 10:20] = 255, 51  # opaque, a fifth, transparent
    image = Image.fromarray(rgb).convert(mode)
    image.putalpha(Image.fromarray(alpha))
    opaque = np.asarray(image.convert("RGB")).astype(float)
    read = read_image(saved(tmp_path / "a.png", image), HEIGHT, WIDTH)
    np.testing.assert_array_equal(read[:, :10], opaque[:, :10])
    np.testing.assert_allclose(read[:, 10:20], opaque[:, 10:20] * 0.2 + 255 * 0.8, atol=0.51)
    assert (read[:, 20:] == 255).all()


def test_alpha_takes_little_more_memory_than_the_image() -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (1000, 1000, 4), dtype=np.uint8)
    tracemalloc.start()
    try:
        mixed = three_channels(rgba)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * mixed.nbytes
    alpha = rgba[..., 3:] / 255
    np.testing.assert_allclose(mixed, rgba[..., :3] * alpha + 255 * (1 - alpha), atol=0.501)


# Where EXIF says that the first row and the first column of the stored pixels lie in the upright image.
UPRIGHT = {
    1: lambda stored: stored,  # top, left
    2: lambda stored: np.fliplr(stored),  # top, right
    3: lambda stored: np.rot90(stored, 2),  # bottom, right
    4: lambda stored: np.flipud(stored),  # bottom, left
    5: lambda stored: stored.swapaxes(0, 1),  # left, top
    6: lambda stored: np.rot90(stored, -1),  # right, top
    7: lambda stored: np.rot90(stored, 2).swapaxes(0, 1),  # right, bottom
    8: lambda stored: np.rot90(stored, 1),  # left, bottom
}


def check_all_frames(path: Path, stored: np.ndarray, orientation: int, atol: int, sixteen_bit: str = "error") -> None:
    """The upright image where its size is stated or none is, the stored one where only that has the stated size."""
    upright = UPRIGHT[orientation](stored)
    for size in (upright.shape[:2], (None, None)):
        np.testing.assert_allclose(read_image(path, *size, sixteen_bit=sixteen_bit), upright, atol=atol)
    if orientation >= 5:  # only these change the size, so that the annotations can tell
        np.testing.assert_allclose(read_image(path, *stored.shape[:2], sixteen_bit=sixteen_bit), stored, atol=atol)
    height, width = stored.shape[:2]
    with pytest.raises(ImageError, match=f"is {height} high and {width} wide"):
        _ = read_image(path, height + 1, width, sixteen_bit=sixteen_bit)


EIGHT_BITS = [
    *(("jpg", mode, 2) for mode in ("RGB", "L", "CMYK")),
    *(("png", mode, 0) for mode in ("RGB", "L", "1", "P", "RGBA", "LA")),
    *(("webp", mode, 0) for mode in ("RGB", "RGBA")),
    *(("tiff", mode, 0) for mode in ("RGB", "L", "1", "P", "RGBA", "LA", "CMYK")),
]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("suffix", "mode", "atol"), EIGHT_BITS)
def test_orientation_follows_the_size_that_the_annotations_give(
    tmp_path: Path, rgb: np.ndarray, orientation: int, suffix: str, mode: str, atol: int
) -> None:
    flat = np.repeat(np.repeat(rgb[:2, :3], HEIGHT // 2, axis=0), WIDTH // 3, axis=1)  # six patches: JPEG keeps them
    image = Image.fromarray(flat).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100}}.get(suffix, {})
    plain = saved(tmp_path / f"plain.{suffix}", image, **options)
    path = saved(tmp_path / f"a.{suffix}", image, exif=exif, **options)
    check_all_frames(path, read_image(plain), orientation, atol)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
@pytest.mark.parametrize("orientation", [3, 5, 6, 8])
def test_a_tiff_is_turned_once_whatever_compresses_it(
    tmp_path: Path, rgb: np.ndarray, orientation: int, compression: str
) -> None:
    plain = saved(tmp_path / "plain.tiff", Image.fromarray(rgb), compression=compression)
    path = saved(tmp_path / "a.tiff", Image.fromarray(rgb), compression=compression, tiffinfo={0x0112: orientation})
    check_all_frames(path, read_image(plain), orientation, atol=0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("channels", [1, 3])
def test_a_deep_tiff_is_turned_once(
    tmp_path: Path, rgb: np.ndarray, orientation: int, order: str, channels: int
) -> None:
    pixels = rgb[:, :, :channels]
    path = tmp_path / "deep.tif"
    _ = path.write_bytes(deep_tiff(pixels.astype(np.uint16) * 257, orientation, order))
    check_all_frames(path, np.broadcast_to(pixels, rgb.shape), orientation, atol=0, sixteen_bit="scale")


def deep_tiff(pixels: np.ndarray, orientation: int, order: str) -> bytes:
    """An uncompressed TIFF of 16 bits a channel, which Pillow cannot write in colour."""
    height, width, channels = pixels.shape
    data = pixels.astype(f"{order}u2").tobytes()
    depth_at, data_at = 200, 200 + 2 * channels
    depth = struct.pack(f"{order}{channels}H", *[16] * channels)
    first = struct.unpack(f"{order}I", depth.ljust(4, b"\0"))[0] if channels == 1 else depth_at
    tags = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, channels, first), (259, 3, 1, 1),
        (262, 3, 1, 1 if channels == 1 else 2), (273, 4, 1, data_at), (274, 3, 1, orientation),
        (277, 3, 1, channels), (278, 4, 1, height), (279, 4, 1, len(data)),
    ]  # fmt: skip
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, kind, count)
        + (struct.pack(f"{order}HH", value, 0) if kind == 3 and tag != 258 else struct.pack(f"{order}I", value))
        for tag, kind, count, value in tags
    )
    magic = b"II*\0" if order == "<" else b"MM\0*"
    head = magic + struct.pack(f"{order}I", 8) + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)
    return head.ljust(depth_at, b"\0") + depth + data


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", [1, 3])
def test_a_deep_png_is_turned_once(tmp_path: Path, rgb: np.ndarray, orientation: int, channels: int) -> None:
    pixels, path = rgb[:, :, :channels], tmp_path / "deep.png"
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert cv2.imwrite(str(path), pixels[:, :, ::-1].astype(np.uint16) * 257)
    data, content = path.read_bytes(), exif.tobytes().removeprefix(b"Exif\0\0")
    _ = path.write_bytes(data[:33] + chunk(b"eXIf", content) + data[33:])  # behind the signature and the header
    check_all_frames(path, np.broadcast_to(pixels, rgb.shape), orientation, atol=0, sixteen_bit="scale")


@pytest.mark.parametrize("orientation", [0, 9, 255])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_an_orientation_that_is_none_turns_nothing(
    tmp_path: Path, rgb: np.ndarray, orientation: int, suffix: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain = saved(tmp_path / f"plain.{suffix}", Image.fromarray(rgb))
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(rgb), exif=exif)
    np.testing.assert_array_equal(read_image(path, HEIGHT, WIDTH), read_image(plain))
    _ = (tmp_path / "deep.tif").write_bytes(deep_tiff(rgb.astype(np.uint16) * 257, orientation, "<"))
    np.testing.assert_array_equal(read_image(tmp_path / "deep.tif", HEIGHT, WIDTH, sixteen_bit="scale"), rgb)


def test_only_a_tiffs_own_tag_turns_it(tmp_path: Path, rgb: np.ndarray) -> None:
    """Pillow would turn by the XMP beside it, and OpenCV would not."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    path = saved(tmp_path / "a.tiff", Image.fromarray(rgb), tiffinfo={700: xmp})
    np.testing.assert_array_equal(read_image(path, HEIGHT, WIDTH), rgb)
    np.testing.assert_array_equal(read_image(path), rgb)


def test_a_size_that_fits_in_neither_way_is_an_error_with_both(tmp_path: Path, rgb: np.ndarray) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(rgb))
    with pytest.raises(ImageError, match=r"a\.png: is 20 high and 30 wide.*height 30, width 20"):
        _ = read_image(path, WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("largest", "white"),
    [(200, 255), (255, 255), (256, 1023), (1023, 1023), (4000, 4095), (16000, 16383), (65535, 65535)],
)
def test_auto_takes_the_bits_that_the_largest_value_needs(tmp_path: Path, largest: int, white: int) -> None:
    """A camera of 12 bits stores 0 .. 4095 in 16 bits; scaled as 16 bits its picture would be nearly black."""
    pixels = np.linspace(0, largest, 64).astype(np.uint16).reshape(8, 8)
    for name in ("deep.png", "deep.tif"):
        Image.fromarray(pixels).save(tmp_path / name)
        found = read_image(tmp_path / name, sixteen_bit="auto")
        np.testing.assert_array_equal(found[:, :, 0], np.rint(pixels * (255 / white)))
    assert eight_bits(np.zeros((2, 2), np.uint16), "auto").max() == 0


def test_sixteen_bits_are_refused_or_scaled_never_whitened(tmp_path: Path) -> None:
    ramp = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    for suffix in ("png", "tiff"):
        path = saved(tmp_path / f"a.{suffix}", Image.fromarray(ramp))
        with pytest.raises(ImageError, match=r"data\.sixteen_bit=scale"):
            _ = read_image(path, 16, 16)
        scaled = read_image(path, 16, 16, sixteen_bit="scale")
        np.testing.assert_array_equal(scaled, np.repeat(np.arange(256).reshape(16, 16, 1), 3, axis=2))


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tiff", Image.fromarray(np.ones((4, 4), np.float32)))
    with pytest.raises(ImageError, match=r"a\.tiff"):
        _ = read_image(path, 4, 4, sixteen_bit="scale")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_claiming(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(10_000, 10_000), (20_000, 20_000), (30_000, 2), (2, 2**31 - 1)])
def test_a_bomb_is_refused_before_decoding(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "bomb.png"
    _ = path.write_bytes(png_claiming(width, height))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match=r"bomb\.png: .*refused before decoding"):
        _ = read_image(path, height, width)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def broken_files(folder: Path, rgb: np.ndarray) -> dict[str, Path]:
    good = saved(folder / "good.jpg", Image.fromarray(rgb)).read_bytes()
    contents = {
        "truncated.jpg": good[: len(good) // 2],
        "empty.jpg": b"",
        "page.jpg": b"<!DOCTYPE html><html><body>404</body></html>",
        "drawing.svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
        "script.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "noise.jpg": bytes(range(256)),
    }
    paths = {name: folder / name for name in (*contents, "missing.jpg", "folder.jpg", "pipe.jpg")}
    for name, data in contents.items():
        _ = paths[name].write_bytes(data)
    paths["folder.jpg"].mkdir()
    os.mkfifo(paths["pipe.jpg"])
    return paths


def test_files_that_are_no_images_are_named_with_a_remedy(tmp_path: Path, rgb: np.ndarray) -> None:
    for name, path in broken_files(tmp_path, rgb).items():
        with pytest.raises(ImageError, match=f"{path}: .*(again|restore|give)") as error:
            _ = read_image(path, HEIGHT, WIDTH)
        assert "\n" not in str(error.value), name


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tiff"])
def test_damaged_files_give_an_image_or_an_error_in_bounded_time(tmp_path: Path, rgb: np.ndarray, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {} if suffix == "bmp" else {"exif": exif}
    good = saved(tmp_path / f"good.{suffix}", Image.fromarray(rgb), **options).read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / f"bad.{suffix}"
    for _ in range(60):
        damaged = np.frombuffer(good, np.uint8).copy()
        places = rng.integers(0, len(damaged), rng.integers(1, 6))
        damaged[places] = rng.integers(0, 256, len(places))
        data = damaged.tobytes()[: rng.integers(1, len(good) + 1)] if rng.random() < 0.3 else damaged.tobytes()
        _ = path.write_bytes(data)
        start = time.process_time()
        with contextlib.suppress(ImageError):
            assert read_image(path, WIDTH, HEIGHT).shape in ((WIDTH, HEIGHT, 3), (HEIGHT, WIDTH, 3))
        assert time.process_time() - start < 5


def jpeg(image: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", **options)  # pyright: ignore[reportArgumentType]
    return file.getvalue()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 4}, {"subsampling": 0}])
def test_a_jpeg_that_lost_its_end_is_refused_although_it_has_its_end_marker(
    tmp_path: Path, options: dict[str, object]
) -> None:
    """As after a download that was cut off, to which a program added what was missing."""
    small = np.random.default_rng(0).integers(0, 256, (10, 15, 3), dtype=np.uint8)
    data = jpeg(cv2.resize(small, (240, 160), interpolation=cv2.INTER_CUBIC), **options)
    start = data.index(b"\xff\xda") + 14
    path, whole = tmp_path / "a.jpg", read_bytes(tmp_path / "whole.jpg", data)
    for share in (0.0, 0.1, 0.5, 0.9, 0.99):
        end = start + int(share * (len(data) - start))
        with pytest.raises(ImageError, match=r"a\.jpg: is truncated or damaged"):
            _ = read_bytes(path, data[:end] + b"\xff\xd9")
    np.testing.assert_array_equal(whole, np.asarray(Image.open(tmp_path / "whole.jpg")))


def test_bytes_that_are_too_many_do_not_spoil_a_jpeg(tmp_path: Path, rgb: np.ndarray) -> None:
    """Some cameras write them before a marker."""
    data = jpeg(rgb)
    read = read_bytes(tmp_path / "a.jpg", data[:-2] + b"\0" * 3 + data[-2:])
    np.testing.assert_array_equal(read, read_bytes(tmp_path / "b.jpg", data))


def read_bytes(path: Path, data: bytes) -> np.ndarray:
    _ = path.write_bytes(data)
    return read_image(path)


@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"progressive": True}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(30, 20), (1, 1), (17, 9)])
def test_a_jpeg_has_the_pixels_that_opencv_decodes(
    tmp_path: Path, rgb: np.ndarray, options: dict[str, object], mode: str, size: tuple[int, int]
) -> None:
    data = jpeg(np.asarray(Image.fromarray(rgb).resize(size).convert(mode)), **options)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(read_bytes(tmp_path / "a.jpg", data), expected)


def test_a_png_chunk_longer_than_its_file_is_refused_before_memory_is_cleared_for_it(
    tmp_path: Path, rgb: np.ndarray
) -> None:
    path = saved(tmp_path / "long.png", Image.fromarray(rgb))
    data = bytearray(path.read_bytes())
    place = data.index(b"IDAT") - 4
    data[place : place + 4] = (2**31 - 1).to_bytes(4, "big")
    _ = path.write_bytes(data)
    start = time.process_time()
    with pytest.raises(ImageError, match=r"long\.png: is truncated or damaged"):
        _ = read_image(path)
    assert time.process_time() - start < 0.5


def test_reading_raises_no_warning_and_leaves_filters_alone(tmp_path: Path, rgb: np.ndarray) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(rgb))
    filters = list(warnings.filters)
    _ = read_image(path)
    assert list(warnings.filters) == filters


@pytest.mark.parametrize(
    ("size", "short", "long", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1067)),
        ((640, 480), 800, 1333, (1067, 800)),
        ((300, 1000), 800, 1333, (400, 1333)),  # the long side decides
        ((160, 160), 160, 160, (160, 160)),
        ((1, 4000), 800, 1333, (1, 1333)),
    ],
)
def test_resized_size(size: tuple[int, int], short: int, long: int, expected: tuple[int, int]) -> None:
    assert resized_size(*size, short, long) == expected


def test_resize_keeps_a_flat_colour() -> None:
    image = np.full((7, 9, 3), (10, 120, 250), np.uint8)
    for size in ((14, 18), (3, 4), (7, 9)):
        assert (resize(image, size) == image[0, 0]).all()
        assert resize(image, size).shape == (*size, 3)
