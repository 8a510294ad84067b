"""Writes how the cost of a detector grows, as Markdown and as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from resdet.analysis.benchmark.growth import QUANTITIES, exponent
from resdet.analysis.pages.figure import png_of

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
        lines += ["", f"## {QUANTITIES[name].label.capitalize()}", "", *table(QUANTITIES[name].label, rows), ""]
        powers = {word: exponent(rows, figure) for word, figure in POWERS.items()}
        lines.append("; ".join(f"{word} grows as its power {power:.2f}" for word, power in powers.items()) + ".")
    return "\n".join([*lines, ""])


POWERS = {"the time of a step": "train_seconds", "its memory": "train_mib"}


def table(label: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"| {' | '.join((label, *COLUMNS.values()))} |",
        f"|{'---|' * (1 + len(COLUMNS))}",
        *(f"| {row['value']} | {' | '.join(cell(name, row[name]) for name in COLUMNS)} |" for row in rows),
    ]


def cell(name: str, value: float) -> str:
    return f"{value:.0%}" if name == "share" else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def by_quantity(results: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    names = dict.fromkeys(row["quantity"] for row in results["rows"])
    return {name: [row for row in results["rows"] if row["quantity"] == name] for name in names}


def plot(results: Mapping[str, Any]) -> bytes:
    """A PNG: the time and the memory of a step over each quantity, with both axes from 0."""
    from matplotlib.figure import Figure

    groups = by_quantity(results)
    figure = Figure(figsize=(4 * len(groups), 6), layout="constrained")
    axes = figure.subplots(2, len(groups), squeeze=False)
    for column, (name, rows) in enumerate(groups.items()):
        for row, figures in enumerate((("train_seconds", "predict_seconds"), ("train_mib",))):
            for each in figures:
                axes[row, column].plot([r["value"] for r in rows], [r[each] for r in rows], "o-", label=COLUMNS[each])
            axes[row, column].set(xlabel=QUANTITIES[name].label, xlim=(0, None), ylim=(0, None))
            if column == 0:
                axes[row, column].legend()
    return png_of(figure, dpi=110)
