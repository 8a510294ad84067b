"""A file of lines, such as a log, that loses none of them on a full disk."""

from __future__ import annotations

import os
from pathlib import Path

from resdet.files import writing


class Appended:
    """A file to which text is added line by line.

    What the disk does not take, because it is full for example, is kept and written before the next line, so that no
    line is lost, cut off or doubled.
    """

    def __init__(self, path: Path) -> None:
        """Raises UserError if the file cannot be opened."""
        self.path = path
        with writing(path):
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        self._kept = b""

    def add(self, text: str) -> str | None:
        """Returns the reason if not everything could be written."""
        self._kept += text.encode(errors="backslashreplace")
        try:
            while self._kept:
                self._kept = self._kept[os.write(self._descriptor, self._kept) :]
        except OSError as error:
            return error.strerror or str(error)
        return None

    def close(self) -> None:
        os.close(self._descriptor)
