"""Tables for the terminal: the errors of a detector, and the certainty of a difference between two detectors."""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from resdet.cli.tables import plain
from resdet.evaluation.analysis.analyse import Analysis
from resdet.evaluation.analysis.bootstrap import Bootstrap
from resdet.evaluation.analysis.errors import ERROR_MEANINGS

MOST_CONFUSIONS = 10


def print_errors(analysis: Analysis, *, console: Console | None = None) -> None:
    """Each type of error with the AP50 it costs, and the classes most often taken for one another."""
    console = console or Console()
    table = _table(console, "Errors at IoU .5", ("error", "count", "AP50 lost", ""))
    for name, meaning in ERROR_MEANINGS.items():
        count = analysis.errors.counts.get(name)
        cost = analysis.errors.cost[name]
        table.add_row(name, "" if count is None else f"{count:,}", _number(cost), Text(meaning, style="dim"))
    console.print(table)
    rows = _confusions(analysis)
    if rows:
        title = f"Taken for another class, at scores from {analysis.score_threshold:g}"
        table = _table(console, title, ("object", "count", "share", "taken for"))
        for true, predicted, count, share in rows:
            table.add_row(plain(true), f"{count:,}", f"{share:.1%}", plain(predicted))
        console.print(table)


def _confusions(analysis: Analysis) -> list[tuple[str, str, int, float]]:
    """(class, class it was taken for, how often, as a share of the class's objects), most often first."""
    counts, kinds = analysis.confusion.counts, len(analysis.class_names)
    mistaken = counts[:kinds, :kinds].copy()
    np.fill_diagonal(mistaken, 0)
    shares = mistaken / np.maximum(counts[:kinds].sum(axis=1, keepdims=True), 1)
    order = np.lexsort((-shares.ravel(), -mistaken.ravel()))[:MOST_CONFUSIONS]
    pairs = [divmod(place, kinds) for place in order.tolist() if mistaken.flat[place]]
    return [
        (analysis.class_names[i], analysis.class_names[j], int(counts[i, j]), float(shares[i, j])) for i, j in pairs
    ]


def print_differences(bootstrap: Bootstrap, *, console: Console | None = None) -> None:
    """Each detector against the first: figures, their difference with its interval, and whether the interval excludes
    zero.
    """
    console = console or Console()
    first, *others = bootstrap.detectors
    for name in others:
        title = f"{name} against {first} ({bootstrap.images:,} images drawn {bootstrap.resamples:,} times, 95 %)"
        table = _table(console, title, ("figure", "against", "value", "difference", "interval", "p", "detectable", ""))
        for figure, difference in bootstrap.differences[name].items():
            values = (bootstrap.detectors[first][figure].value, bootstrap.detectors[name][figure].value)
            interval = f"{_number(difference.low, sign=True)} .. {_number(difference.high, sign=True)}"
            table.add_row(
                figure,
                *map(_number, values),
                _number(difference.difference, sign=True),
                "-" if difference.low is None else interval,
                _number(difference.p),
                _number(difference.detectable),
                "significant" if difference.significant else "",
            )
        console.print(table)


def _table(console: Console, title: str, columns: tuple[str, ...]) -> Table:
    """A table below its printed title; rich would wrap its own title to the width of the table."""
    console.print()
    bold = plain(title)
    bold.stylize("bold")
    console.print(bold, soft_wrap=True)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for position, column in enumerate(columns):
        table.add_column(column, justify="left" if position in (0, len(columns) - 1) else "right")
    return table


def _number(value: float | None, *, sign: bool = False) -> str:
    return "-" if value is None else f"{value:{'+' if sign else ''}.3f}"
