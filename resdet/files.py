"""Writes files atomically, so that after any interruption a file is either complete or absent, and reads what a user
names with care.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from resdet.errors import UserError

ANOTHER_OUTPUT = "choose another --output"
REFUSALS = {errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENOTDIR}
LARGEST = 32 * 2**30  # bytes of an annotation file or of results
LARGEST_TEXT = 2**30  # bytes of a list, a table or another text
# characters of the name that are repeated in its temporary name; file systems permit 255 bytes in total
LONGEST_STEM = 50
MAKING = 60.0  # seconds, far more than between the making of a folder and its lock


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


@contextmanager
def opened_regular(path: Path, *, largest: int = LARGEST) -> Iterator[BufferedReader]:
    """A file that a user names, for reading. Raises OSError, and UserError for a pipe or a device, which could have no
    end, and for more than `largest` bytes.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # the opening of a named pipe would wait for a writer
    with open(descriptor, "rb", closefd=True) as file:
        info = os.fstat(descriptor)
        if stat.S_ISDIR(info.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(info.st_mode):
            raise UserError(f"{path}: is no regular file (a pipe or a device); give a file")
        if info.st_size > largest:
            raise UserError(
                f"{path}: has {info.st_size} bytes, and such a file has at most {largest}; is it another file?"
            )
        yield file


def read_regular(path: Path, *, largest: int = LARGEST) -> bytes:
    """The whole content of such a file."""
    with opened_regular(path, largest=largest) as file:
        return file.read()


def read_text(path: Path, remedy: str, *, largest: int = LARGEST_TEXT) -> str:
    """The UTF-8 text of such a file, without a byte order mark. Raises UserError naming the file; `remedy` ends the
    message if there is no such text.
    """
    try:
        return read_regular(path, largest=largest).decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {remedy}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file in UTF-8; {remedy}") from None
    except ValueError:  # a NUL byte, which no path has
        raise UserError(f"{str(path)!r}: is no path; {remedy}") from None


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


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, and waits until their names are on the disk: what is synced in a folder is
    lost with the name of the folder. Raises OSError.
    """
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in reversed(new):
        sync_folder(place.parent)


@contextmanager
def usable_paths() -> Iterator[None]:
    """Converts the refusal of a path by the operating system, wherever the path is first used, into a UserError that
    names it: a name that is too long, a folder without permission, links in a circle. Also a decorator.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None or error.errno not in REFUSALS:
            raise
        raise UserError(f"{error.filename}: cannot be used as a path ({error.strerror}); give another one") from None


@contextmanager
def writing(place: Path, remedy: str = ANOTHER_OUTPUT) -> Iterator[None]:
    """Converts file system errors inside the block into a UserError that names the path and the remedy."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{place}: cannot be written ({error.strerror or error}); {remedy}") from None


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Writes files, by name, into a folder, which is created. Raises UserError if that fails."""
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


@contextmanager
def working_folder(parent: Path, name: str) -> Iterator[Path]:
    """A temporary folder in `parent`, removed when the block ends. Those of this name whose processes were killed are
    removed as well. Raises OSError.
    """
    prefix = f".{name}-"
    for other in parent.glob(f"{prefix}*"):
        if _is_abandoned(other):
            shutil.rmtree(other, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=prefix, ignore_cleanup_errors=True) as folder:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield Path(folder)
        finally:
            os.close(descriptor)


def _is_abandoned(folder: Path) -> bool:
    """Whether no process works in a folder of `working_folder`: none has its lock, and it is not just being made."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return time.time() - os.fstat(descriptor).st_mtime > MAKING
    except OSError:  # locked; or a file system without locks, on which it stays
        return False
    finally:
        os.close(descriptor)


@contextmanager
def whole_folder(path: Path, *, replaces: Callable[[Path], bool]) -> Iterator[Path]:
    """A temporary folder for writing; it is renamed to `path` when the block ends, and removed after an error.

    An existing folder is replaced only if `replaces` says that it may be. Raises UserError if it may not, or if the
    folder cannot be written.
    """
    with writing(path):
        if os.path.lexists(path) and not (path.is_dir() and (not any(path.iterdir()) or replaces(path))):
            raise UserError(f"{path}: exists already and holds something else; {ANOTHER_OUTPUT}")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, old = (path.with_name(f"{_beginning(path)}{secrets.token_hex(4)}.tmp") for _ in range(2))
        temporary.mkdir()
        try:
            yield temporary
            for file in temporary.iterdir():
                _sync(file)
            sync_folder(temporary)
            if path.exists():
                path.rename(old)
            temporary.rename(path)
            sync_folder(path.parent)
        finally:
            for folder in (temporary, old):
                shutil.rmtree(folder, ignore_errors=True)
