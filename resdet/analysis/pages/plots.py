"""Plots as inline SVG with the colours of the page (light or dark), without a script and with reproducible bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from resdet.analysis.pages.page import Number, meter, name_of, number

WIDTH, HEIGHT = 480, 270  # in the units of the viewBox
RIGHT, TOP, BOTTOM = 12, 10, 38
CHARACTER = 6.2  # about the width of a character
MOST_POINTS = 400  # per line: more points are not visible
MOST_COLORS = 8


@dataclass(frozen=True)
class Line:
    """y over x; None is a gap. `faint` draws it thin and pale, `points` marks each of its points, `dashed` dashes it;
    lines of one `color` (1 .. 8, by position unless given; 0 is grey) belong together. From the ninth line on, colours
    come again and lines are dashed.
    """

    name: str
    x: Sequence[Number]
    y: Sequence[Number | None]
    color: int | None = None
    faint: bool = False
    points: bool = False
    dashed: bool = False


def line_plot(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str = "",
    y_label: str = "",
    x_range: tuple[Number, Number] | None = None,
    y_range: tuple[Number, Number] | None = None,
    log_y: bool = False,
    square: bool = False,
    legend: bool = True,
) -> Markup:
    """Lines over numbers; the ranges come from the data unless they are given. With `log_y`, values of 0 and below are
    gaps.

    A faint line is left out of the legend, and a plot of one line has none. `legend=False` is for plots below a
    legend of their own (`legend_of`).
    """
    lines = [_thinned(_drawable(line, log_y=log_y)) for line in _styled(lines)]
    x_range = x_range or _range([x for line in lines for x in line.x])
    y_range = y_range or y_range_of(lines, log_y=log_y)
    width, height = (340, 340) if square else (WIDTH, HEIGHT)
    frame = Frame(x_range, y_range, width, height, log_y=log_y, y_label=y_label)
    svg = element(
        "svg",
        axes(frame, x_label) + Markup("").join(_line(line, frame) for line in sorted(lines, key=_faint_first)),
        class_="lines square" if square else "lines",
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label=title,
    )
    return figure(title, svg, legend=legend_of(lines) if legend else Markup(""))


def legend_of(lines: Sequence[Line]) -> Markup:
    """The names of lines with their colours; nothing for fewer than two."""
    named = [line for line in _styled(lines) if line.name and not line.faint]
    swatch = Markup('<svg class="swatch" viewBox="0 0 14 4" aria-hidden="true">{}</svg>')
    whole = Markup('<rect class="fill{}" width="14" height="4" rx="2"/>')
    parts = Markup('<rect class="fill{0}" width="5" height="4"/><rect class="fill{0}" x="9" width="5" height="4"/>')
    entries = Markup("").join(
        Markup("<li>{}{}</li>").format(
            swatch.format((parts if line.dashed else whole).format(line.color)), name_of(line.name)
        )
        for line in named
    )
    return Markup('<ul class="legend">{}</ul>').format(entries) if len(named) > 1 else Markup("")


def y_range_of(lines: Sequence[Line], *, log_y: bool) -> tuple[Number, Number]:
    """The range that shows all of these lines, for plots that share it: from 0 (or a lower lowest value) to a little
    above the highest value; for logarithms, a little more than from the lowest to the highest value.
    """
    values = [y for line in lines for y in _drawable(line, log_y=log_y).y if y is not None]
    if log_y:
        low, high = min(values, default=0.1), max(values, default=1.0)
        return low / 1.25, high * 1.25
    low, high = min([0.0, *values]), max([0.0, *values])
    if low == high:
        return 0.0, 1.0
    room = 0.05 * (high - low)
    return low - (room if low < 0 else 0.0), high + room


def bar_plot(
    bars: Sequence[tuple[str, Number | None]],
    *,
    title: str = "",
    largest: Number | None = None,
    digits: int = 3,
    color: int = 1,
    details: Sequence[str] = (),
) -> Markup:
    """Horizontal bars, one per row, with name and value. `largest` is the value of a full bar (default: the largest
    value), `details` are remarks under the names.
    """
    values = [abs(value) for _, value in bars if value is not None and math.isfinite(value)]
    largest = largest or max(values, default=1.0) or 1.0
    rows = Markup("").join(
        Markup('<tr><th scope="row">{}{}</th><td class="bar">{}</td><td class="number">{}</td></tr>\n').format(
            name_of(name),
            Markup('<span class="remark">{}</span>').format(details[i]) if details else "",
            meter(None if value is None else abs(value), largest=largest, color=color),
            number(value, digits),
        )
        for i, (name, value) in enumerate(bars)
    )
    return figure(title, Markup('<table class="bars"><tbody>\n{}</tbody></table>').format(rows))


def figure(title: str, content: Markup, legend: str | Markup = "") -> Markup:
    """Content under a caption."""
    caption = Markup("<figcaption>{}</figcaption>").format(title) if title else Markup("")
    return Markup('<figure class="plot">{}{}{}</figure>').format(caption, legend, content)


def element(tag: str, content: str | Markup = "", title: str = "", **attributes: Number | str) -> Markup:
    """An SVG element; attribute names are written with `_` for `-`, and `class_`. Numbers are rounded to 0.01."""
    text = Markup("").join(
        Markup(' {}="{}"').format(_attribute(name), f"{round(value, 2):g}" if isinstance(value, Number) else value)
        for name, value in attributes.items()
    )
    tooltip = Markup("<title>{}</title>").format(title) if title else Markup("")
    return Markup("<{0}{1}>{2}{3}</{0}>").format(tag, text, tooltip, content)


def _attribute(name: str) -> str:
    return name if name[0].isupper() or name == "viewBox" else name.rstrip("_").replace("_", "-")


class Frame:
    """Maps values to positions in the viewBox; on the left is room for the ticks of y and its title."""

    def __init__(
        self,
        x_range: tuple[Number, Number],
        y_range: tuple[Number, Number],
        width: int,
        height: int,
        *,
        log_y: bool = False,
        y_label: str = "",
    ) -> None:
        self.x_range, self.y_range, self.width, self.height, self.log_y = x_range, y_range, width, height, log_y
        self.y_label = y_label
        self.y_ticks = log_ticks(*y_range) if log_y else ticks(*y_range)
        longest = max(len(tick_text(value)) for value in self.y_ticks) if self.y_ticks else 0
        self.left = 12 + CHARACTER * longest + (16 if y_label else 0)

    def x(self, value: Number) -> Number:
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.width - self.left - RIGHT)

    def y(self, value: Number) -> Number:
        low, high = self.y_range
        if self.log_y:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        share = min(max((value - low) / (high - low), -0.05), 1.05)
        return self.height - BOTTOM - share * (self.height - TOP - BOTTOM)


def axes(frame: Frame, x_label: str) -> Markup:
    left, right, bottom = frame.left, frame.width - RIGHT, frame.height - BOTTOM
    parts: list[Markup] = []
    for value in frame.y_ticks:
        y = frame.y(value)
        parts.append(element("line", x1=left, x2=right, y1=y, y2=y, class_="grid"))
        parts.append(element("text", tick_text(value), x=left - 6, y=y + 4, text_anchor="end", class_="tick"))
    for value in ticks(*frame.x_range):
        x = frame.x(value)
        parts.append(element("line", x1=x, x2=x, y1=bottom, y2=bottom + 4, class_="grid"))
        parts.append(element("text", tick_text(value), x=x, y=bottom + 16, text_anchor="middle", class_="tick"))
    parts.append(element("line", x1=left, x2=right, y1=bottom, y2=bottom, class_="base"))
    parts.append(element("text", x_label, x=right, y=bottom + 32, text_anchor="end", class_="axis"))
    middle = (TOP + bottom) / 2
    spot = f"translate(11 {middle:g}) rotate(-90)"
    parts.append(element("text", frame.y_label, transform=spot, text_anchor="middle", class_="axis"))
    return Markup("").join(parts)


def _styled(lines: Sequence[Line]) -> list[Line]:
    """The lines with the colours and dashes of their positions, where they have none of their own."""
    return [
        line
        if line.color is not None
        else replace(line, color=1 + i % MOST_COLORS, dashed=line.dashed or i >= MOST_COLORS)
        for i, line in enumerate(lines)
    ]


def _line(line: Line, frame: Frame) -> Markup:
    style = f"line stroke{line.color}{' faint' if line.faint else ''}{' dashed' if line.dashed else ''}"
    parts: list[Markup] = []
    for piece in _pieces(line):
        spots = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in piece)
        parts.append(element("polyline", points=spots, class_=style))
        for x, y in piece if line.points or len(piece) == 1 else []:
            value = f"{line.name} {y:.4g} at {x:g}".strip()
            parts.append(element("circle", cx=frame.x(x), cy=frame.y(y), r=3, class_=f"fill{line.color}", title=value))
    return Markup("").join(parts)


def _pieces(line: Line) -> list[list[tuple[Number, Number]]]:
    """The stretches between gaps."""
    pieces: list[list[tuple[Number, Number]]] = [[]]
    for x, y in zip(line.x, line.y, strict=True):
        if y is not None:
            pieces[-1].append((x, y))
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if piece]


def _faint_first(line: Line) -> bool:
    return not line.faint


def _drawable(line: Line, *, log_y: bool) -> Line:
    y = [v if v is not None and math.isfinite(v) and (v > 0 or not log_y) else None for v in line.y]
    return replace(line, y=y)


def _thinned(line: Line) -> Line:
    """At most MOST_POINTS points; each is the mean of a group of neighbours."""
    if len(line.x) <= MOST_POINTS:
        return line
    size = -(-len(line.x) // MOST_POINTS)
    starts = range(0, len(line.x), size)
    x = [_mean(line.x[start : start + size]) for start in starts]
    y = [_mean([v for v in line.y[start : start + size] if v is not None]) for start in starts]
    return replace(line, x=[v or 0.0 for v in x], y=y)


def _mean(values: Sequence[Number]) -> Number | None:
    return sum(values) / len(values) if values else None


def _range(values: Sequence[Number]) -> tuple[Number, Number]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def ticks(low: Number, high: Number, about: int = 5) -> list[Number]:
    """Round numbers in [low, high]: multiples of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: Number, high: Number) -> list[Number]:
    """Powers of ten in [low, high]; if they are few, also 2 and 5 times each power."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if last - first <= 3 else (1,)
    spots = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    return [spot for spot in spots if low <= spot <= high]


def tick_text(value: Number) -> str:
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    if abs(value) >= 1e4:
        return f"{value / 1e3:g}k"
    return f"{value:g}" if not value or abs(value) >= 1e-4 else f"{value:.0e}".replace("e-0", "e-")


def short(text: str, longest: int = 16) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1] + "…"
