"""Keeps the checked content of a large annotation file as plain arrays in the cache.

Later runs, and all processes of a run, map the same arrays into memory. An index is a folder of .npy files, which hold
numbers and nothing that could run, and index.json with the rest, the state of the annotation files, and a checksum of
each array. One that is damaged, or of other files, is made again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from resdet.coco.federated import Federated
from resdet.coco.packed_strings import PackedStrings
from resdet.coco.reader import Annotations
from resdet.coco.report import Note
from resdet.coco.segmentation import Segmentations
from resdet.data.sets.cache import LONGEST_NAME, cache_folder, state
from resdet.errors import UserError
from resdet.files import read_regular, whole_folder

VERSION = 1  # of the verdicts and of the arrays: part of the state
SMALLEST = 16 * 2**20  # bytes of annotation files: smaller ones are read about as quickly
MAPPED = 2**20  # bytes from which on an array is mapped into memory and not copied
WAIT = 120.0  # seconds for another process that makes the same index
DESCRIPTION = "index.json"
COLUMNS = (
    "image_ids", "heights", "widths", "category_ids", "ids", "image_index", "labels", "boxes", "given", "clipped",
    "areas", "crowd", "difficult",
)  # fmt: skip
MASKS = tuple(field.name for field in fields(Segmentations))
FEDERATED = ("federated", "absent", "partial")


class _Rest(msgspec.Struct):
    """What is not an array."""

    source: str
    class_names: tuple[str, ...]
    kept: int
    read: int
    without_crowd_flag: int
    skipped: dict[str, Note]
    skipped_masks: dict[str, Note]
    mended: dict[str, Note]
    remarks: tuple[str, ...]
    unreadable: dict[str, str]
    frequency: tuple[str, ...] | None


class _Description(msgspec.Struct):
    state: list[str]
    checksums: dict[str, int]
    rest: _Rest


def indexed(files: Sequence[Path], choice: Sequence[object], make: Callable[[], Annotations]) -> Annotations:
    """The content that `make` gives for these annotation files, from its index if there is one, which is made at first
    use. `choice` is what else decides about the content.

    A cache that cannot be written is a remark of the content, and no error.
    """
    sizes = [os.stat(file).st_size for file in files if file.is_file()]
    if len(sizes) < len(files) or sum(sizes) < SMALLEST:
        return make()
    said = json.dumps([[str(file.absolute()) for file in files], list(choice)])
    name = re.sub(r"[^\w.+-]", "_", files[0].stem, flags=re.ASCII)[-LONGEST_NAME:]
    folder = cache_folder() / "index" / f"{name}-{hashlib.sha256(os.fsencode(said)).hexdigest()[:16]}"
    now = [f"index {VERSION}", said, *map(state, files)]
    if (found := _read(folder, now)) is not None:
        return found
    with alone(folder):
        if (found := _read(folder, now)) is not None:  # another process made it meanwhile
            return found
        content = make()
        if now[2:] != [*map(state, files)]:
            return content  # changed while it was read
        try:
            _write(folder, content, now)
        except UserError as error:
            return replace(content, remarks=(*content.remarks, f"not kept for later runs: {error}"))
    return _read(folder, now, check=False) or content


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Waits for another process that makes the same folder; not for ever, and not where there are no locks."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        file = (folder.parent / f".{folder.name}.lock").open("a")
    except OSError:
        yield
        return
    with file:
        until = time.monotonic() + WAIT
        while time.monotonic() < until:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.1)
            except OSError:
                break
        yield


def _arrays(content: Annotations) -> dict[str, np.ndarray]:
    arrays = {name: getattr(content, name) for name in COLUMNS}
    arrays |= {f"masks.{name}": getattr(content.masks, name) for name in MASKS}
    arrays["file_names"] = np.frombuffer(content.file_names.blob, np.uint8)
    arrays["file_names.offsets"] = content.file_names.offsets
    if content.federated is not None:
        arrays |= {f"federated.{name}": getattr(content.federated, name) for name in FEDERATED}
    return arrays


def _write(folder: Path, content: Annotations, now: list[str]) -> None:
    frequency = None if content.federated is None else content.federated.frequency
    rest = _Rest(
        content.source, content.class_names, content.kept, content.read, content.without_crowd_flag, content.skipped,
        content.skipped_masks, content.mended, content.remarks, content.unreadable, frequency,
    )  # fmt: skip
    checksums: dict[str, int] = {}
    with whole_folder(folder, replaces=lambda path: True) as working:
        for name, array in _arrays(content).items():
            np.save(working / f"{name}.npy", array, allow_pickle=False)
            checksums[name] = _checksum(np.ascontiguousarray(array))
        description = msgspec.json.encode(_Description(now, checksums, rest))
        _ = (working / DESCRIPTION).write_bytes(description)


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(array.reshape(-1).view(np.uint8).data)


def _read(folder: Path, now: list[str], *, check: bool = True) -> Annotations | None:
    """None if there is no index, or one of another state, or a damaged one."""
    try:
        description = msgspec.json.decode(read_regular(folder / DESCRIPTION), type=_Description)
        if description.state != now:
            return None
        arrays = {name: _array(folder / f"{name}.npy") for name in description.checksums}
        if check and any(_checksum(array) != description.checksums[name] for name, array in arrays.items()):
            return None
        return _content(description.rest, arrays)
    except (OSError, UserError, msgspec.DecodeError, ValueError, EOFError, KeyError):
        return None


def _array(file: Path) -> np.ndarray:
    """The array of a file; a large one is mapped."""
    if file.stat().st_size < MAPPED:
        return np.load(file, allow_pickle=False)
    return np.load(file, mmap_mode="r", allow_pickle=False).view(np.ndarray)


def _content(rest: _Rest, arrays: dict[str, np.ndarray]) -> Annotations:
    columns: dict[str, Any] = {name: arrays[name] for name in COLUMNS}
    federated = None
    if rest.frequency is not None:
        parts: dict[str, Any] = {name: arrays[f"federated.{name}"] for name in FEDERATED}
        federated = Federated(**parts, frequency=rest.frequency)
    kept = {name: getattr(rest, name) for name in rest.__struct_fields__ if name != "frequency"}
    return Annotations(
        **kept,
        **columns,
        file_names=PackedStrings(arrays["file_names"].tobytes(), arrays["file_names.offsets"]),
        masks=Segmentations(*(arrays[f"masks.{name}"] for name in MASKS)),
        federated=federated,
    )
