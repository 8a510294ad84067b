"""Images inside shards: uncompressed tar archives, as WebDataset's, whose members are read at random by their places.

A path such as FOLDER/train-000000.tar/00000012.jpg names a member. A table of each shard's members is made once a
process from the headers alone, so that an image is one read, as from a file of its own.
"""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from resdet.errors import UserError

SUFFIX = ".tar"
BLOCK = 512  # bytes, of a tar archive
END = 2 * BLOCK  # zeros at the end of a whole archive


class Member(NamedTuple):
    offset: int
    size: int


def shard_of(path: Path) -> Path | None:
    """The shard in which a path names a member; None for a file of its own."""
    return path.parent if path.parent.suffix == SUFFIX and path.parent.is_file() else None


def read_member(path: Path) -> bytes:
    """The content of a member. Raises OSError, and UserError for a shard that is not whole."""
    shard = path.parent
    found = members(shard).get(path.name)
    if found is None:
        raise FileNotFoundError(2, "no such member", str(path))
    with shard.open("rb") as file:
        _ = file.seek(found.offset)
        return file.read(found.size)


def members(shard: Path) -> Mapping[str, Member]:
    """The regular files in a shard by their names. Raises OSError, and UserError for one that is cut short or is no
    such archive.
    """
    stat = shard.stat()
    return _members(shard, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=100_000)
def _members(shard: Path, size: int, time: int) -> Mapping[str, Member]:
    found: dict[str, Member] = {}
    end = 0
    try:
        with shard.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for entry in archive:
                if entry.isreg():
                    found[entry.name] = Member(entry.offset_data, entry.size)
                end = entry.offset_data + -(-entry.size // BLOCK) * BLOCK
                archive.members = []  # pyright: ignore[reportAttributeAccessIssue]  # otherwise tarfile keeps them
            _ = file.seek(end)
            whole = end <= size and file.read(END) == bytes(END)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise UserError(f"{shard}: is no whole tar archive ({error}); copy or fetch it again") from None
    if not whole:
        raise UserError(f"{shard}: is cut short after {size} bytes; copy or fetch it again")
    return found


def real_file(path: Path) -> Path:
    """The file on the disk that holds an image."""
    return shard_of(path) or path


def image_bytes(path: Path) -> bytes:
    """The content of an image in a shard, or in a file of its own. Raises OSError."""
    return path.read_bytes() if shard_of(path) is None else read_member(path)
