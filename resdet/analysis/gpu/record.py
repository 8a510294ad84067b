"""The file of measurements, complete after every value: whatever ends a measurement, what was measured remains."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypedDict

from resdet.analysis.gpu.page import page
from resdet.files import readable_json, write_files

JSON, PAGE = "gpu.json", "gpu.md"

State = Literal["running", "done", "cut", "failed", "left out"]
Value = str | int | float | None
Row = Mapping[str, Value]


class Part(TypedDict):
    """A part of the measurement: tables of rows, and texts, both by title."""

    state: State
    seconds: float
    problem: str | None
    tables: dict[str, list[Row]]
    texts: dict[str, str]


class Record:
    """The measurements in `folder`/gpu.json, and the page made of them beside it.

    One process at a time adds to it; each reads the file when it begins. Raises UserError if the folder cannot be
    written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        file = folder / JSON
        self.parts: dict[str, Part] = json.loads(file.read_bytes())["parts"] if file.exists() else {}

    def begin(self, part: str) -> None:
        """Adds a part without values, in place of an earlier one of this name."""
        self.parts[part] = Part(state="running", seconds=0.0, problem=None, tables={}, texts={})
        self._write()

    def row(self, part: str, table: str, row: Row) -> None:
        """Adds a row to a table of the part."""
        self.parts[part]["tables"].setdefault(table, []).append(row)
        self._write()

    def text(self, part: str, title: str, text: str) -> None:
        """Adds a text to the part."""
        self.parts[part]["texts"][title] = text
        self._write()

    def end(self, part: str, state: State, *, seconds: float = 0.0, problem: str | None = None) -> None:
        """Notes how the part ended."""
        ended = self.parts[part]
        ended["state"], ended["seconds"], ended["problem"] = state, round(seconds, 1), problem
        self._write()

    def _write(self) -> None:
        write_files(self.folder, {JSON: readable_json({"parts": self.parts}), PAGE: page(self.parts).encode()})
