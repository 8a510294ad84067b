"""What a power loss leaves of a folder, replayed: names and content that were not synced to the disk may be gone."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
State = dict[str, bytes | None]  # the content of each file and None for each folder, by its path below the root


class Disk:
    """Records the states of a folder that a power loss may leave, before each write of this process and at the end.

    Two for each moment: with all names so far, and content only where it was synced (`names_first`); and with nothing
    that was not synced (`synced_alone`). `promised` is set by the caller to what must be there from then on.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.promised: Any = None
        self.states: list[tuple[Any, State]] = []
        self._objects: dict[int, int] = {}  # by inode: a number that no other file ever gets
        self._count = 0
        self._content: dict[int, bytes] = {}  # by number: what was synced of a file
        self._names: dict[int, dict[str, tuple[int, bool]]] = {}  # by number: what was synced of a folder
        self._working = False
        _ = self._seen(root)
        self._sync_folder(root)

    def record(self) -> None:
        """A power loss at this moment."""
        if self._working:
            return
        self._working = True
        try:
            alive: set[int] = set()
            names_first: State = {}
            self._walk(self.root, "", names_first, alive)
            self._objects = {inode: number for inode, number in self._objects.items() if inode in alive}
            synced_alone: State = {}
            self._synced(self._seen(self.root), "", synced_alone)
            for state in (names_first, synced_alone):
                if (self.promised, state) not in self.states[-4:]:
                    self.states.append((self.promised, state))
        finally:
            self._working = False

    def synced(self, descriptor: int) -> None:
        """A file or a folder is on the disk."""
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if not path.is_relative_to(self.root):
            return
        self._working = True
        try:
            if path.is_dir():
                self._sync_folder(path)
            else:
                self._content[self._seen(path)] = path.read_bytes()
        finally:
            self._working = False

    def _seen(self, path: Path) -> int:
        inode = path.lstat().st_ino
        if inode not in self._objects:
            self._count += 1
            self._objects[inode] = self._count
        return self._objects[inode]

    def _sync_folder(self, folder: Path) -> None:
        self._names[self._seen(folder)] = {
            entry.name: (self._seen(Path(entry.path)), entry.is_dir()) for entry in os.scandir(folder)
        }

    def _walk(self, folder: Path, prefix: str, state: State, alive: set[int]) -> None:
        alive.add(folder.lstat().st_ino)
        for entry in os.scandir(folder):
            path = Path(entry.path)
            information = path.lstat()
            alive.add(information.st_ino)
            name = f"{prefix}{entry.name}"
            if stat.S_ISDIR(information.st_mode):
                state[name] = None
                self._walk(path, f"{name}/", state, alive)
            else:
                state[name] = self._content.get(self._seen(path), b"")

    def _synced(self, number: int, prefix: str, state: State) -> None:
        for name, (child, is_folder) in self._names.get(number, {}).items():
            state[f"{prefix}{name}"] = None if is_folder else self._content.get(child, b"")
            if is_folder:
                self._synced(child, f"{prefix}{name}/", state)


@contextmanager
def recorded(root: Path) -> Iterator[Disk]:
    """Records what this process writes below a folder; the hook of Python that sees the writes cannot be removed, and
    does nothing after the block.
    """
    disk, real, on = Disk(root), os.fsync, [True]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if on[0] and (event in CHANGES or (event == "open" and int(arguments[2] or 0) & WRITES)):
            disk.record()

    def fsync(descriptor: int) -> None:
        disk.record()
        real(descriptor)
        disk.synced(descriptor)
        disk.record()

    sys.addaudithook(hook)
    os.fsync = fsync
    try:
        yield disk
        disk.record()
    finally:
        on[0] = False
        os.fsync = real


def written(state: State, folder: Path) -> Path:
    """The folder that such a power loss leaves."""
    for name, content in sorted(state.items()):
        if content is None:
            (folder / name).mkdir(parents=True)
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _ = (folder / name).write_bytes(content)
    return folder
