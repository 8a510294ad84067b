"""The folder for data sets that resdet generates or converts, and the COCO files that conversions write there."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from resdet.coco.annotation_file import AnnotationFile, read_annotation_file
from resdet.coco.report import Note
from resdet.files import read_regular, replace_file, writing

LONGEST_NAME = 60  # characters of a converted file's name that a person reads


def cache_folder() -> Path:
    """$RESDET_CACHE if it is set, otherwise ~/.cache/resdet."""
    return Path(os.environ.get("RESDET_CACHE") or Path.home() / ".cache" / "resdet")


def write_cached(target: Path, content: dict[str, Any]) -> None:
    """Writes a whole json file into the cache or nothing, even if several processes write at the same time."""
    with writing(target.parent, "set RESDET_CACHE to a folder with room"):
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, json.dumps(content, allow_nan=False).encode())


def converted_file(name: str, fingerprint: Iterable[str], convert: Callable[[], dict[str, Any]]) -> Path:
    """The COCO file in the cache that `convert` makes of other files: written at first use, and again whenever the
    fingerprint, which has the state of every file that `convert` reads, is another.

    The content's `info` is what `read_converted` reads: `Conversion`.
    """
    digest = hashlib.sha256()
    for part in fingerprint:
        digest.update(os.fsencode(f"{part}\n"))
    plain = re.sub(r"[^\w.+-]", "_", name, flags=re.ASCII)[-LONGEST_NAME:]
    target = cache_folder() / f"{plain}-{digest.hexdigest()[:16]}.json"
    if not target.is_file():
        write_cached(target, convert())
    return target


def state(path: Path) -> str:
    """A file's path, size and time of change, for a fingerprint; without the last two if there is no such file."""
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return str(path)
    return f"{path} {stat.st_size} {stat.st_mtime_ns}"


class Conversion(msgspec.Struct):
    """What a conversion notes in the `info` of its COCO file, besides the content. `source` names the files for people
    (empty: the COCO file's own name); the others are those of `AnnotationFile`.
    """

    source: str = ""
    mended: dict[str, Note] = {}
    skipped: dict[str, Note] = {}
    unreadable: dict[str, str] = {}


class _Converted(msgspec.Struct):
    info: Conversion = msgspec.field(default_factory=Conversion)


def read_converted(path: Path) -> AnnotationFile:
    """The records of a COCO file; of one that `converted_file` wrote, with what the conversion noted."""
    file = read_annotation_file(path)
    if path.parent != cache_folder():
        return file
    noted = msgspec.json.decode(read_regular(path), type=_Converted).info
    return msgspec.structs.replace(
        file,
        source=noted.source or file.source,
        mended=noted.mended,
        skipped=noted.skipped,
        unreadable=noted.unreadable,
    )
