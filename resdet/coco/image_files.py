"""The names of image files: which names an annotation file may use, and whether the files exist."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from resdet.coco.packed_strings import PackedStrings
from resdet.coco.shards import members, shard_of
from resdet.errors import UserError

MAX_PIXELS = 64 * 2**20  # an 8192 x 8192 image; decoding takes three bytes each
MAX_SIDE = 16384
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")  # in lower case


def check_file_name(name: str, where: str) -> None:
    """Accepts only a path below the images folder, because annotation files come from untrusted sources."""
    parts = re.split(r"[/\\]", name)
    if not name or "\0" in name:
        problem = "is empty" if not name else "contains a NUL byte"
    elif "://" in name:
        problem = "is a URL; download the images first"
    elif not parts[0] or re.match(r"[A-Za-z]:", name):
        problem = "is an absolute path"
    elif ".." in parts:
        problem = "climbs out of the images folder with '..'"
    else:
        return
    raise UserError(f"{where}: file_name {name[:200]!r} {problem}; write it relative to the images folder")


def surely_plain(names: PackedStrings) -> Bool[np.ndarray, " n"]:
    """Names that `check_file_name` certainly accepts: they are not empty, do not begin with a slash, and have no NUL
    byte, no colon and no two dots in a row. The others have to be looked at one by one.
    """
    text, offsets = np.frombuffer(names.blob, np.uint8), names.offsets
    lengths = np.diff(offsets)
    plain = lengths > 0
    first = text[np.minimum(offsets[:-1], max(len(text) - 1, 0))] if len(text) else np.zeros(len(names), np.uint8)
    plain &= ~np.isin(first, list(b"/\\"))
    odd = np.isin(text, list(b"\0:"))
    odd[1:] |= (text[1:] == ord(".")) & (text[:-1] == ord("."))
    plain[np.repeat(np.arange(len(names)), lengths)[odd]] = False
    return plain


def missing_files(folder: Path, names: Sequence[str], source: str) -> list[str]:
    """The names that are not regular files below `folder`; each folder is scanned once, instead of one look-up per
    name.

    Raises UserError if the folder cannot be read or if a name is a link to a place outside it.
    """
    try:
        root = folder.resolve(strict=True)
        scanned = {"": _scan(root, root)}
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; give the folder that the file names of {source} lie in") from None
    missing = []
    for name in names:
        parent, _, base = name.rpartition("/")
        if parent not in scanned:
            scanned[parent] = _scan_below(root, parent)
        stays_inside = scanned[parent].get(base)
        if stays_inside is None:
            missing.append(name)
        elif not stays_inside:
            raise UserError(
                f"{source}: file_name {name[:200]!r} is a link that leaves {root}; "
                "copy the file there, or name the folder that really holds the images"
            )
    return missing


def is_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a folder is a file, or a link to one. A link in a circle is neither file nor folder; asking
    the entry itself would raise OSError for it, and so for its whole folder.
    """
    return entry.is_file(follow_symlinks=False) or (entry.is_symlink() and os.path.isfile(entry.path))


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a folder is a folder, or a link to one."""
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path))


def _scan_below(root: Path, parent: str) -> dict[str, bool]:
    try:
        if shard_of(root / parent / "_") is not None:
            inside = (root / parent).resolve(strict=True).is_relative_to(root)
            return dict.fromkeys(members(root / parent), inside)
        return _scan(root, (root / parent).resolve(strict=True))
    except (OSError, ValueError):  # ValueError: a name that no file system accepts
        return {}


def _scan(root: Path, folder: Path) -> dict[str, bool]:
    """Regular files, including links to them, and whether each lies below the root."""
    inside = folder.is_relative_to(root)
    with os.scandir(folder) as entries:
        return {entry.name: inside and _stays(entry, root) for entry in entries if is_file(entry)}


def _stays(entry: os.DirEntry[str], root: Path) -> bool:
    return not entry.is_symlink() or Path(entry.path).resolve().is_relative_to(root)
