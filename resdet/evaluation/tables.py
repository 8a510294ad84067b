"""Figures for people, as tables, and for programs, as one flat JSON object."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from resdet.errors import UserError
from resdet.text import printable

MEANINGS = (
    (r"AP", "average precision, mean over IoU .50:.95"),
    (r"AP(\d\d)", "average precision at IoU .{}"),
    (r"AR(\d+)", "average recall, best {} an image"),
    (r"(A[PR])s(\d*)", "{} of small objects, up to 32x32 pixels"),
    (r"(A[PR])m(\d*)", "{} of medium objects"),
    (r"(A[PR])l(\d*)", "{} of large objects, from 96x96 pixels"),
)
COLUMN_ROWS = 20  # of classes, before they take a second block of columns
LONGEST_NAME = 24


def print_figures(
    figures: Mapping[str, float | None],
    *,
    title: str = "",
    notes: Sequence[str] = (),
    console: Console | None = None,
) -> None:
    """Two tables: the figures over all classes with what they mean, and AP and AR by class."""
    console = console or Console()
    overall = {name: value for name, value in figures.items() if name.count("/") == 1}
    for note in notes:
        console.print(Text(note, style="yellow"), soft_wrap=True)
    if title:
        console.print(Text(title, style="bold"), soft_wrap=True)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("", style="dim")
    for name, value in overall.items():
        table.add_row(plain(name), _number(value), meaning(name))
    console.print(table)
    rows = by_class(figures)
    if rows:
        console.print()
        console.print(_class_table(rows, console.width))


def by_class(figures: Mapping[str, float | None]) -> dict[str, dict[str, float | None]]:
    """{"person": {"bbox/AP": .27, "bbox/AR": .41}, ...}; a class name may hold slashes itself."""
    rows: dict[str, dict[str, float | None]] = {}
    for name, value in figures.items():
        if name.count("/") > 1:
            kind, figure, class_name = name.split("/", 2)
            rows.setdefault(class_name, {})[f"{kind}/{figure}"] = value
    return rows


def _class_table(rows: Mapping[str, Mapping[str, float | None]], width: int) -> Table:
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    kinds = {column.split("/")[0] for column in columns}
    name_width = min(max(map(len, (*rows, "class"))), LONGEST_NAME)
    headings = [column if len(kinds) > 1 else column.split("/")[1] for column in columns]
    block_width = name_width + sum(2 + max(len(heading), 5) for heading in headings) + 4
    blocks = max(1, min(-(-len(rows) // COLUMN_ROWS), width // block_width))
    height = -(-len(rows) // blocks)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for block in range(blocks):
        if block:
            table.add_column("", min_width=1)
        table.add_column("class", width=name_width, overflow="ellipsis", no_wrap=True)
        for heading in headings:
            table.add_column(heading, justify="right", no_wrap=True)
    cells = [[plain(name), *(_number(row.get(column)) for column in columns)] for name, row in rows.items()]
    for first in range(height):
        line: list[Text] = []
        for row in cells[first::height]:
            line += [Text(""), *row] if line else row
        table.add_row(*line)
    return table


def plain(text: str) -> Text:
    """Names come from files: neither markup nor control sequences in them reach the terminal."""
    return Text(printable(text))


def _number(value: float | None) -> Text:
    return Text("-", style="dim") if value is None else Text(f"{value:.3f}")


def meaning(name: str) -> str:
    """What a figure is, in words; empty for one that is not known."""
    kind, figure = name.split("/", 1)
    if kind == "voc":
        return "Pascal VOC average precision at IoU .50, mean over classes"
    for pattern, meaning in MEANINGS:
        if match := re.fullmatch(pattern, figure):
            limit = f", best {match[2]}" if match.re.groups > 1 and match[2] else ""
            return meaning.format(*match.groups()) + limit
    return ""


def write_figures(path: str | Path, figures: Mapping[str, float | str | None]) -> None:
    """One flat JSON object, written whole or not at all. Raises UserError where it cannot be written."""
    path = Path(path)
    text = json.dumps(dict(figures), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).chmod(0o644)  # a temporary file is readable by its owner alone
        os.replace(file.name, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another file for --json") from None
