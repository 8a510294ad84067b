"""Keeps decoded images, in memory or on the disk, for all workers: `data.cache`. The pixels are those of the decoder.

The pixels of all images lie one after another. A row of a table says of each image whether it is there, and of which
state of its file. On the disk each image has a checksum too, and what does not agree is decoded again.
"""

from __future__ import annotations

import hashlib
import mmap
import multiprocessing
import os
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Shaped, UInt8

from resdet.coco.packed_strings import PackedStrings
from resdet.coco.shards import real_file
from resdet.errors import UserError
from resdet.files import writing

VERSION = 1  # of the decoder's pixels and of the files
ROW = np.dtype([("there", "<u8"), ("size", "<i8"), ("time", "<i8"), ("checksum", "<u8")])
MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")

Image = UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class KeptImages:
    """N images of known sizes; `offsets` are their places in `pixels`."""

    heights: Int64[np.ndarray, " N"]
    widths: Int64[np.ndarray, " N"]
    offsets: Int64[np.ndarray, " N1"]
    pixels: UInt8[np.ndarray, " P"]
    table: Shaped[np.ndarray, " N"]
    checked: bool  # whether a checksum protects each image

    def image(self, index: int, file: Path, decode: Callable[[], Image]) -> Image:
        """A copy of the kept image, or what `decode` gives, which is then kept."""
        row, shape = self.table[index], (int(self.heights[index]), int(self.widths[index]), 3)
        place = self.pixels[self.offsets[index] : self.offsets[index + 1]].reshape(shape)
        state = _state(file)
        if state is not None and row["there"] == 1 and (row["size"], row["time"]) == state:
            image = place.copy()
            if not self.checked or row["checksum"] == zlib.crc32(image.data):
                return image
        image = decode()
        if state is not None and image.shape == shape:
            row["there"] = 0
            place[:] = image
            row["size"], row["time"], row["checksum"] = *state, zlib.crc32(np.ascontiguousarray(image).data)
            row["there"] = 1
        return image


def _state(file: Path) -> tuple[int, int] | None:
    try:
        stat = real_file(file).stat()
    except (OSError, ValueError):
        return None
    return stat.st_size, stat.st_mtime_ns


def needed_bytes(heights: Int64[np.ndarray, " N"], widths: Int64[np.ndarray, " N"]) -> int:
    """What the decoded images take."""
    return int((heights * widths).sum()) * 3 + len(heights) * ROW.itemsize


def in_memory(heights: Int64[np.ndarray, " N"], widths: Int64[np.ndarray, " N"], *, workers: int) -> KeptImages:
    """Images in memory that this process and those that it forks share. Raises UserError if there is not enough."""
    check_memory(heights, widths)
    if workers and multiprocessing.get_start_method() != "fork":
        raise UserError("data.cache=ram needs workers that are forked, which this system does not do; take disk")
    memory = np.frombuffer(mmap.mmap(-1, needed_bytes(heights, widths)), np.uint8)
    return _laid_out(heights, widths, memory, checked=False)


def check_memory(heights: Int64[np.ndarray, " N"], widths: Int64[np.ndarray, " N"]) -> None:
    """Raises UserError if the decoded images do not fit into the memory that is free."""
    needed, free = needed_bytes(heights, widths), free_memory()
    if free is not None and needed > free:
        raise UserError(
            f"data.cache=ram needs {_gigabytes(needed)} for {len(heights)} decoded images, and {_gigabytes(free)} are "
            "free; take disk, or off"
        )


def file_on_disk(
    folder: Path, names: PackedStrings, images: Path, heights: Int64[np.ndarray, " N"], widths: Int64[np.ndarray, " N"],
    *, choice: str,
) -> Path:  # fmt: skip
    """The file of `folder` for the images of these names and sizes. `choice`: what else decides about the pixels."""
    digest = hashlib.sha256(os.fsencode(f"{VERSION} {choice} {images.resolve()}\n"))
    for part in (names.blob, names.offsets.tobytes(), heights.tobytes(), widths.tobytes()):
        digest.update(part)
    return folder / f"{digest.hexdigest()[:24]}.pixels"


def on_disk(file: Path, heights: Int64[np.ndarray, " N"], widths: Int64[np.ndarray, " N"]) -> KeptImages:
    """Images in a file (`file_on_disk`), which other processes and later runs share. Raises UserError if there is not
    enough room.
    """
    needed = needed_bytes(heights, widths)
    check_disk(file, heights, widths)
    with writing(file, "set RESDET_CACHE to a folder with room, or data.cache=off"):
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if os.fstat(descriptor).st_size < needed:  # never shortened: another process may have mapped it
                os.posix_fallocate(descriptor, 0, needed)  # so that a full disk is known now
            memory = np.frombuffer(mmap.mmap(descriptor, needed), np.uint8)
        finally:
            os.close(descriptor)
    return _laid_out(heights, widths, memory, checked=True)


def check_disk(file: Path, heights: Int64[np.ndarray, " N"], widths: Int64[np.ndarray, " N"]) -> None:
    """Raises UserError if the decoded images do not fit onto the disk; they do if they are there already."""
    folder, needed = file.parent, needed_bytes(heights, widths)
    if file.exists() and file.stat().st_size == needed:
        return
    place = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise UserError(
            f"data.cache=disk needs {_gigabytes(needed)} for {len(heights)} decoded images in {folder}, and "
            f"{_gigabytes(free)} are free; set RESDET_CACHE to a folder with room, or data.cache=off"
        )


def _laid_out(
    heights: Int64[np.ndarray, " N"], widths: Int64[np.ndarray, " N"], memory: UInt8[np.ndarray, " B"], *, checked: bool
) -> KeptImages:
    count = len(heights)
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(3 * heights * widths)))
    start = count * ROW.itemsize
    return KeptImages(heights, widths, offsets, memory[start:], memory[:start].view(ROW), checked)


def free_memory() -> int | None:
    """Bytes that are free in this machine, or in the limits of this container; None if that is not known."""
    free: list[int] = []
    if MEMINFO.exists():
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines() if ":" in line)
        free.append(int(lines.get("MemAvailable", "0 kB").split()[0]) * 1024)
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        free += [] if limit == "max" else [int(limit) - int((CGROUP / "memory.current").read_text())]
    except (OSError, ValueError):
        pass
    return min(free) if free else None


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
