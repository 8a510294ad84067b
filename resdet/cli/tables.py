"""Figures as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from resdet.evaluation.metrics import by_class, meaning, overall
from resdet.text import printable

COLUMN_ROWS = 20  # classes; more of them are shown in two blocks of columns
MOST_UNDEFINED = 100  # classes without objects that are listed
LONGEST_NAME = 24


def print_figures(
    figures: Mapping[str, float | None],
    *,
    title: str = "",
    notes: Sequence[str] = (),
    console: Console | None = None,
) -> None:
    """Two tables: the figures over all classes with their meaning, and AP and AR by class."""
    console = console or Console()
    for note in notes:
        console.print(Text(note, style="yellow"), soft_wrap=True)
    if title:
        console.print(Text(title, style="bold"), soft_wrap=True)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("", style="dim")
    for name, value in overall(figures).items():
        table.add_row(plain(name), _number(value), meaning(name))
    console.print(table)
    rows = by_class(figures)
    defined = {name: row for name, row in rows.items() if any(value is not None for value in row.values())}
    if len(rows) - len(defined) > MOST_UNDEFINED:
        console.print(f"{len(rows) - len(defined):,} classes without objects are not listed below")
        rows = defined
    if rows:
        console.print()
        console.print(_class_table(rows, console.width))


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
    """Removes markup and control sequences, because names come from files and are printed on the terminal."""
    return Text(printable(text))


def _number(value: float | None) -> Text:
    return Text("-", style="dim") if value is None else Text(f"{value:.3f}")
