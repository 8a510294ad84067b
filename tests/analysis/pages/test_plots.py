"""Plots are small, well-formed SVG whose names are text; ticks are round numbers."""

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from resdet.analysis.pages.plots import Line, bar_plot, line_plot, log_ticks, matrix_plot, tick_text, ticks


def test_ticks_are_round_and_inside():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(0, 90000) == [0, 20000, 40000, 60000, 80000]
    assert ticks(-0.3, 0.3) == [-0.2, 0, 0.2]  # steps of 0.2 are the next round ones above 0.12
    assert log_ticks(0.05, 3) == pytest.approx([0.05, 0.1, 0.2, 0.5, 1, 2])
    assert log_ticks(1e-6, 1) == pytest.approx([10.0**power for power in range(-6, 1)])


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.25, "0.25"), (90000, "90k"), (2.5e6, "2.5M"), (0.0005, "0.0005"), (2e-5, "2e-5")]
)
def test_ticks_are_short(value: float, text: str):
    assert tick_text(value) == text


def points(html: str) -> list[list[tuple[float, float]]]:
    return [
        [(float(x), float(y)) for x, y in (spot.split(",") for spot in line.split())]
        for line in re.findall(r'<polyline points="([^"]*)"', html)
    ]


def test_a_line_goes_from_corner_to_corner_of_its_ranges():
    (line,) = points(line_plot([Line("a", [0, 10], [0, 1])], title="t", y_range=(0, 1)))
    (left, bottom), (right, top) = line
    assert left < right
    assert top < bottom


def test_what_is_undefined_leaves_a_gap():
    pieces = points(line_plot([Line("a", [0, 1, 2, 3, 4], [1.0, 2.0, None, math.nan, 3.0])], title="t"))
    assert [len(piece) for piece in pieces] == [2, 1]


def test_long_lines_are_averaged_and_keep_their_course():
    steps = list(range(100_000))
    (line,) = points(line_plot([Line("a", steps, [float(step) for step in steps])], title="t"))
    assert len(line) <= 400
    assert all(b[0] > a[0] and b[1] < a[1] for a, b in pairwise(line))


def test_names_are_escaped_and_the_markup_is_well_formed():
    name = "<script>alert(1)</script>\"'&"
    plots = [
        line_plot([Line(name, [0, 1], [0, 1], points=True), Line("b", [0, 1], [1, 0])], title=name, x_label=name),
        line_plot([], title="nothing"),
        line_plot([Line("b", [5], [1e-3])], title="one point", log_y=True, square=True),
        bar_plot([(name, 0.5), ("b", None), ("c", math.inf)], title=name, details=[name, "", ""]),
        matrix_plot([[1, 0], [3, 20000]], [name, "b"], [name, "b"], title=name, row_label="r", column_label="c"),
    ]
    for plot in plots:
        assert "<script" not in plot
        _ = ElementTree.fromstring(plot)
