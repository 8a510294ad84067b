"""Writes files atomically: after any interruption a file is either complete or absent."""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from resdet.errors import UserError

ANOTHER_OUTPUT = "choose another --output"
# characters of the name that are repeated in its temporary name; file systems permit 255 bytes in total
LONGEST_STEM = 50


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path for writing; it replaces `path` when the block ends, and is deleted after an error.

    Readers see the old content or the new, never a part; the file is on the disk before it appears. Its mode is the one
    that the user's umask gives to new files. For a device or a pipe, which has no content to replace, the path itself
    is yielded. If several processes write the same path, the last one to finish determines the content. Raises OSError.
    """
    if path.parent == Path("/dev") or (path.exists() and not path.is_file() and not path.is_dir()):
        yield path
        return
    temporary = path.with_name(f"{_beginning(path)}{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        try:
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        finally:
            os.close(descriptor)
        yield temporary
        temporary.chmod(mode)  # some libraries create their own file under this name, readable only by its owner
        _sync(temporary)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def leftovers(path: Path) -> list[Path]:
    """The temporary files for `path` that a killed process left behind."""
    beginning = _beginning(path)
    return [entry for entry in path.parent.iterdir() if entry.name.startswith(beginning) and entry.suffix == ".tmp"]


def _beginning(path: Path) -> str:
    return f".{path.name[:LONGEST_STEM]}."


def replace_file(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all, as `whole_file` does. Raises OSError."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def write_synced(path: Path, data: bytes) -> None:
    """Writes a file in a folder that will be renamed, and waits until the file is on the disk."""
    path.write_bytes(data)
    _sync(path)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder (creations, renames) are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writing(place: Path, remedy: str = ANOTHER_OUTPUT) -> Iterator[None]:
    """Converts file system errors inside the block into a UserError that names the path and the remedy."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{place}: cannot be written ({error.strerror or error}); {remedy}") from None


def write_output(path: Path, data: bytes, remedy: str = ANOTHER_OUTPUT) -> None:
    """Writes the output file of a command completely or not at all. Raises UserError whose message ends
    with `remedy`.
    """
    with writing(path, remedy):
        replace_file(path, data)


def write_outputs(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Writes files, by name, into the output folder of a command, which is created. Raises UserError if that fails."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in contents.items():
            replace_file(folder / name, data)


def readable_json(content: object) -> bytes:
    """JSON for people and programs: indented, with all scripts unescaped. Raises ValueError for NaN, which JSON does
    not have.
    """
    # Half of a surrogate pair (a file name that is not UTF-8) becomes \udc80, which JSON reads back unchanged.
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False).encode(errors="backslashreplace") + b"\n"
