"""Files that are whole or absent, whatever ends the process while they are written."""

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
LONGEST_STEM = 50  # characters of a name that its temporary name repeats; file systems allow 255 bytes in all


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which takes the place of `path` when the block ends, and is gone after an error.

    Readers see the old content or the new, never a part; the file is on the disk before it appears. It has the mode
    that the user's umask gives to new files. Devices and pipes, which have no content to replace, are yielded
    themselves. Several processes may write the same path: the last one to end wins. Raises OSError.
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
        temporary.chmod(mode)  # some libraries write a file of their own under this name, for its owner alone
        _sync(temporary)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def leftovers(path: Path) -> list[Path]:
    """The temporary files that a killed process left of `path`."""
    beginning = _beginning(path)
    return [entry for entry in path.parent.iterdir() if entry.name.startswith(beginning) and entry.suffix == ".tmp"]


def _beginning(path: Path) -> str:
    return f".{path.name[:LONGEST_STEM]}."


def replace_file(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all, as `whole_file` does. Raises OSError."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def write_synced(path: Path, data: bytes) -> None:
    """Writes a file that nobody reads yet (in a folder to be renamed) and waits until it is on the disk."""
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
    """Turns what the file system refuses inside the block into a UserError that names the place and the remedy."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{place}: cannot be written ({error.strerror or error}); {remedy}") from None


def write_output(path: Path, data: bytes, remedy: str = ANOTHER_OUTPUT) -> None:
    """A file that a command was told to write, whole or not at all. Raises UserError, ending with `remedy`."""
    with writing(path, remedy):
        replace_file(path, data)


def write_outputs(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Files, by name, of the folder that a command was given; it is made. Raises UserError where that cannot be."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in contents.items():
            replace_file(folder / name, data)


def readable_json(content: object) -> bytes:
    """For people and programs: indented, every script as it is. Raises ValueError for NaN, which JSON does not have."""
    # Half a surrogate pair (a file name that is not UTF-8) becomes \udc80, which JSON reads back as it was.
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False).encode(errors="backslashreplace") + b"\n"
