"""Keeps two processes of resdet from writing into one folder."""

from __future__ import annotations

import fcntl
import os
from io import TextIOWrapper
from pathlib import Path

from resdet.errors import UserError
from resdet.files import ANOTHER_OUTPUT, make_folder, writing

LOCK = ".lock"  # in a folder that resdet writes into; it stays there, for to remove it could let two in

_HELD: set[TextIOWrapper] = set()  # the files of the locks of this process


def _let_go() -> None:
    """A forked child (a data worker) would keep the lock of its parent after this was killed."""
    while _HELD:
        _HELD.pop().close()


os.register_at_fork(after_in_child=_let_go)


class FolderLock:
    """Keeps other processes of resdet from writing into a folder, until the block ends or the process dies."""

    def __init__(self, folder: Path, what: str) -> None:
        """`what` is at work in the folder, for the message: "training"."""
        self.folder, self.what = folder, what
        self._file: TextIOWrapper | None = None

    def __enter__(self) -> FolderLock:
        return self

    def take(self) -> None:
        """Creates the folder and locks it; does nothing if that is done. Raises UserError if another process has it."""
        if self._file is not None:
            return
        with writing(self.folder):
            make_folder(self.folder)
            file = (self.folder / LOCK).open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise UserError(
                f"{self.folder}: another {self.what} is at work here; wait for it, stop it, or {ANOTHER_OUTPUT}"
            ) from None
        self._file = file
        _HELD.add(file)

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            _HELD.discard(self._file)
            self._file.close()
