"""Writes measurements as Markdown: docs/gpu.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resdet.errors import UserError
from resdet.files import write_files
from resdet.text import printable

HEADER = """# On a GPU

    python tools/on_gpu.py --out DIR
    python tools/on_gpu.py --page DIR/gpu.json    # makes this page from its measurements

The script takes at most eight minutes of one GPU, begins with what matters most, and writes its results after every
value. `--only PART` repeats a part, `--device cpu --small` runs the same code at a tiny size on any machine.
[performance.md](performance.md) says what was built for a GPU and how it is tested without one.
"""
NOT_YET = "\n**Not yet run on a GPU**: none was at hand. Nothing that this page could say has been measured.\n"
UNFINISHED = {
    "running": "was cut off here",
    "cut": "ran out of time here",
    "failed": "ended with an error",
    "left out": "was left out: no time remained",
}


def page(parts: Mapping[str, Any]) -> str:
    """The page of all parts in their order; without parts it says that nothing has been run."""
    if not parts:
        return HEADER + NOT_YET
    return HEADER + "".join(section(name, part) for name, part in parts.items())


def write_page(measurements: Path, docs: Path) -> None:
    """Copies the measurements into the folder of the docs, and makes gpu.md there. Raises UserError for other files."""
    try:
        content = measurements.read_bytes()
        parts = json.loads(content)["parts"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--page {measurements}: no measurements of tools/on_gpu.py ({error})") from None
    write_files(docs, {"gpu.json": content, "gpu.md": page(parts).encode()})


def section(name: str, part: Mapping[str, Any]) -> str:
    """A part: its state, tables and texts."""
    lines = [f"\n## {name.capitalize()}", ""]
    if part["state"] in UNFINISHED:
        problem = f": {printable(part['problem'])}" if part["problem"] else ""
        lines += [f"This part {UNFINISHED[part['state']]}{problem}.", ""]
    for title, rows in part["tables"].items():
        lines += [f"**{title}**", "", *table(rows), ""]
    for title, text in part["texts"].items():
        lines += [f"**{title}**", "", *(f"    {line}".rstrip() for line in text.splitlines()), ""]
    return "\n".join(lines)


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows as a table whose columns are all keys, in the order in which they first occur."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return [
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(cell(row.get(column)) for column in columns)} |" for row in rows),
    ]


def cell(value: object) -> str:
    """A number with four digits; nothing for a value that was not measured."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    return printable(str(value)).replace("|", "\\|")
