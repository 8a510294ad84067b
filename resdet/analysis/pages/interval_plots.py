"""Plots of figures with their intervals: as rows, and over a cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from resdet.analysis.pages.plots import (
    BOTTOM,
    CHARACTER,
    HEIGHT,
    MOST_COLORS,
    TOP,
    WIDTH,
    Frame,
    axes,
    element,
    figure,
    short,
    tick_text,
    ticks,
)
from resdet.drawing.tags import Rect, places

ROW = 42  # height of a row, in the units of the viewBox: a name, and the interval below it
LONGEST = 60  # characters of the name of a row
LONGEST_BESIDE = 40  # characters of the name beside a point
TEXT = 14  # height of a name


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval, where there is one, and its value for each seed."""

    name: str
    value: float
    low: float | None
    high: float | None
    seeds: Sequence[float] = ()

    @property
    def interval(self) -> tuple[float, float]:
        """The interval; only the value if there is none."""
        return (self.value, self.value) if self.low is None or self.high is None else (self.low, self.high)


def interval_plot(
    estimates: Sequence[Estimate], *, title: str, x_label: str, zero: bool = False, first_color: int = 1
) -> Markup:
    """One row per estimate: a line for the interval, a dot for the value, small dots for the seeds. `zero` marks 0.

    Names stand above their intervals, so that the plot is as wide with long ones, and its text as large on a phone.
    """
    left_end, width, bottom = 16, WIDTH, TOP + ROW * len(estimates)
    low, high = _span(estimates, [0.0] * zero)

    def x(value: float) -> float:
        return left_end + (value - low) / (high - low) * (width - left_end - 16)

    parts = [element("text", x_label, x=width - 16, y=bottom + 34, text_anchor="end", class_="axis")]
    for value in ticks(low, high):
        parts.append(element("line", x1=x(value), x2=x(value), y1=TOP, y2=bottom, class_="grid"))
        parts.append(element("text", tick_text(value), x=x(value), y=bottom + 16, text_anchor="middle", class_="tick"))
    if zero:
        parts.append(element("line", x1=x(0.0), x2=x(0.0), y1=TOP, y2=bottom, class_="base"))
    for i, one in enumerate(estimates):
        y, color = TOP + ROW * (i + 0.62), 1 + (i + first_color - 1) % MOST_COLORS
        parts.append(element("text", short(one.name, LONGEST), x=left_end, y=y - 10, class_="over", title=one.name))
        left, right = map(x, one.interval)
        parts.append(element("line", x1=left, x2=right, y1=y, y2=y, class_=f"line stroke{color}", title=_tooltip(one)))
        parts += [
            _dot(x(seed), y + 8, color, radius=2, opacity=0.55, title=f"a seed: {seed:.4f}") for seed in one.seeds
        ]
        parts.append(_dot(x(one.value), y, color, radius=4.5, title=_tooltip(one)))
    return figure(title, _svg(parts, width, bottom + 40, title))


def cost_plot(points: Sequence[tuple[Estimate, float]], *, title: str, x_label: str, y_label: str) -> Markup:
    """Each figure, with its interval, over its cost (a number above 0); names stand beside the points."""
    dearest = max(cost for _, cost in points)
    frame = Frame((0.0, 1.15 * dearest), _span([one for one, _ in points], []), WIDTH, HEIGHT, y_label=y_label)
    parts = [axes(frame, x_label)]
    for i, (one, cost) in enumerate(points):
        color, x, y = 1 + i % MOST_COLORS, frame.x(cost), frame.y(one.value)
        low, high = map(frame.y, one.interval)
        parts.append(element("line", x1=x, x2=x, y1=low, y2=high, class_=f"line stroke{color}", stroke_opacity=0.5))
        parts.append(_dot(x, y, color, radius=5, title=f"{_tooltip(one)} at {cost:.4g}"))
    parts += _names_of_points(points, frame)
    return figure(title, _svg(parts, WIDTH, HEIGHT, title))


def _names_of_points(points: Sequence[tuple[Estimate, float]], frame: Frame) -> list[Markup]:
    """The names beside the points, apart from one another; a point without room for it has its tooltip."""
    names = [short(one.name, LONGEST_BESIDE) for one, _ in points]
    around: list[Rect] = []
    for one, cost in points:  # the point with its interval, from the axis on
        x, (bottom, top) = frame.x(cost) - frame.left, map(frame.y, one.interval)
        around.append((x - 7.0, min(top, frame.y(one.value) - 5.0), x + 7.0, max(bottom, frame.y(one.value) + 5.0)))
    sizes = [(float(TEXT), CHARACTER * len(name)) for name in names]
    spots = places(around, sizes, WIDTH - frame.left, HEIGHT - BOTTOM)
    return [
        element("text", name, x=frame.left + place[0], y=place[1] + TEXT - 3, class_="over", title=one.name)
        for name, (one, _), place in zip(names, points, spots, strict=True)
        if place is not None
    ]


def _span(estimates: Sequence[Estimate], also: Sequence[float]) -> tuple[float, float]:
    """The range from the lowest to the highest value that must be visible, with a margin."""
    values = [value for one in estimates for value in (one.value, *one.interval, *one.seeds)] + list(also)
    room = 0.06 * (max(values) - min(values)) or 0.01
    return min(values) - room, max(values) + room


def _dot(x: float, y: float, color: int, *, radius: int | float, opacity: float = 1.0, title: str) -> Markup:
    return element("circle", cx=x, cy=y, r=radius, class_=f"fill{color}", fill_opacity=opacity, title=title)


def _tooltip(one: Estimate) -> str:
    low, high = one.interval
    return f"{one.name}: {one.value:.4f} (95 %: {low:.4f} .. {high:.4f})"


def _svg(parts: Sequence[Markup], width: int, height: int, title: str) -> Markup:
    content = Markup("").join(parts)
    return element(
        "svg", content, class_="lines", viewBox=f"0 0 {width} {height}", role="img", aria_label=title
    )  # fmt: skip
