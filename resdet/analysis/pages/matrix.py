"""A matrix as shades with its values, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from resdet.analysis.pages.page import Number
from resdet.analysis.pages.plots import element, figure, short

MOST_CELLS = 30  # cells per side of a matrix


def matrix_plot(
    values: Sequence[Sequence[Number]],
    row_names: Sequence[str],
    column_names: Sequence[str],
    *,
    title: str,
    row_label: str = "",
    column_label: str = "",
    digits: int = 0,
) -> Markup:
    """A matrix as shades (each row relative to its own sum) with the values in the cells; at most MOST_CELLS
    per side."""
    values = [row[:MOST_CELLS] for row in values[:MOST_CELLS]]
    row_names, column_names = row_names[:MOST_CELLS], column_names[:MOST_CELLS]
    cell, left, top = 34, 118, 100
    width, height = left + cell * len(column_names) + 64, top + cell * len(values) + 4
    parts = [
        element("text", row_label, x=left - 8, y=top - 10, text_anchor="end", class_="axis"),
        element("text", column_label, x=left, y=12, class_="axis"),
    ]
    for i, name in enumerate(row_names):
        y = top + cell * (i + 0.5) + 4
        parts.append(element("text", short(name), x=left - 8, y=y, text_anchor="end", class_="tick", title=name))
    for j, name in enumerate(column_names):
        spot = f"translate({left + cell * (j + 0.5) + 4:g} {top - 8}) rotate(-50)"
        parts.append(element("text", short(name), transform=spot, class_="tick", title=name))
    for i, row in enumerate(values):
        total = sum(row) or 1.0
        for j, value in enumerate(row):
            tooltip = f"{row_names[i]} → {column_names[j]}: {value:.{digits}f} ({value / total:.0%})"
            parts.append(_matrix_cell(value, value / total, left + cell * j, top + cell * i, cell, digits, tooltip))
    drawn = element(
        "svg",
        Markup("").join(parts),
        class_="matrix",
        viewBox=f"0 0 {width} {height}",
        width=width,
        role="img",
        aria_label=title,
    )
    return figure(title, Markup('<div class="scroll">{}</div>').format(drawn))


def _matrix_cell(value: Number, share: Number, x: Number, y: Number, side: Number, digits: int, tooltip: str) -> Markup:
    place = {"x": x + 1, "y": y + 1, "width": side - 2, "height": side - 2, "rx": 3}
    if not value:
        return element("rect", title=tooltip, class_="track", **place)
    ink = "cell strong" if share > 0.55 else "cell"
    text = f"{value:.{digits}f}" if value < 10000 else f"{value / 1000:.0f}k"
    return element(
        "g",
        element("rect", class_="track", **place)
        + element("rect", class_="fill1", fill_opacity=0.08 + 0.92 * share, **place)
        + element("text", text, x=x + side / 2, y=y + side / 2 + 4, text_anchor="middle", class_=ink),
        title=tooltip,
    )
