"""Writes how the cost of a detector grows, as Markdown and as a plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from resdet.analysis.benchmark.growth import QUANTITIES, exponent
from resdet.analysis.pages.figure import png_of
from resdet.analysis.pages.page import Number

ACROSS = 3  # quantities beside each other in the plot
JSON, PAGE, PLOT = "growth.json", "growth.md", "growth.png"
MARK = '<!-- <meta name="generator" content="resdet"> -->'  # by which resdet knows a file of its own
COLUMNS = {  # of a table, with the unit of each figure
    "train_seconds": "training step (s)",
    "predict_seconds": "prediction (s)",
    "train_mib": "memory of the step (MiB)",
    "train_gflop": "products of the step (GFLOP)",
    "share": "of the machine's limit",
}


def page(results: Mapping[str, Any]) -> str:
    """A table for each quantity; below it the power of the quantity as which time and memory grow."""
    where = results["conditions"]
    lines = [
        MARK,
        "# How the cost grows",
        "",
        f"Around batch {results['batch']} of {results['height']} x {results['width']} pixels, the median of"
        f" {results['rounds']} runs; {where['processor']}, GPU {where['GPU']}, {where['threads']} threads. The limit of"
        f" the machine is {results['limit_gflops']:.0f} GFLOP/s, measured with a product of large"
        f" {results['limit_of']} matrices.",
    ]
    for name, rows in by_quantity(results).items():
        lines += ["", f"## {_sentence(QUANTITIES[name].label)}", "", *table(QUANTITIES[name].label, rows), ""]
        powers = {word: exponent(rows, figure) for word, figure in POWERS.items()}
        lines.append(
            _sentence("; ".join(f"{word} grows as its power {power:.2f}" for word, power in powers.items())) + "."
        )
    return "\n".join([*lines, ""])


POWERS = {"the time of a step": "train_seconds", "its memory": "train_mib"}


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def table(label: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"| {' | '.join((label, *COLUMNS.values()))} |",
        f"|{'---|' * (1 + len(COLUMNS))}",
        *(f"| {row['value']} | {' | '.join(cell(name, row[name]) for name in COLUMNS)} |" for row in rows),
    ]


def cell(name: str, value: Number) -> str:
    return f"{value:.0%}" if name == "share" else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def by_quantity(results: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    names = dict.fromkeys(row["quantity"] for row in results["rows"])
    return {name: [row for row in results["rows"] if row["quantity"] == name] for name in names}


def plot(results: Mapping[str, Any]) -> bytes:
    """A PNG: the time and the memory of a step over each quantity, with both axes from 0."""
    from matplotlib.figure import Figure

    groups = by_quantity(results)
    bands = math.ceil(len(groups) / ACROSS)  # each is a row of times above a row of memory
    figure = Figure(figsize=(3.2 * ACROSS, 4 * bands), layout="constrained")
    axes = figure.subplots(2 * bands, ACROSS, squeeze=False)
    for empty in axes[-2:, len(groups) - ACROSS * (bands - 1) :].flat:
        empty.remove()
    for number, (name, rows) in enumerate(groups.items()):
        band, column = divmod(number, ACROSS)
        for row, figures in enumerate((("train_seconds", "predict_seconds"), ("train_mib",))):
            panel = axes[2 * band + row, column]
            for each in figures:
                panel.plot([r["value"] for r in rows], [r[each] for r in rows], "o-", label=COLUMNS[each])
            panel.set(xlabel=QUANTITIES[name].label, xlim=(0, None), ylim=(0, None))
            if number == 0:
                panel.legend(fontsize=8)
    return png_of(figure, dpi=100)
