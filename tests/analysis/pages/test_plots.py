"""Plots are small, well-formed SVG whose names are text; ticks are round numbers."""

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from resdet.analysis.pages.interval_plots import Estimate, cost_plot, interval_plot
from resdet.analysis.pages.matrix import matrix_plot
from resdet.analysis.pages.plots import Line, bar_plot, line_plot, log_ticks, tick_text, ticks


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


LONG = "timm/tf_efficientnetv2_xl.in21k_ft_in1k"


def shapes(plot: str, tag: str) -> list[dict[str, str]]:
    return [element.attrib for element in ElementTree.fromstring(plot).iter(tag)]


def test_the_ninth_line_has_a_colour_again_and_is_dashed_in_plot_and_legend():
    plot = line_plot([Line(f"net {i}", [0, 1], [0, i]) for i in range(9)], title="t")
    classes = [line["class"] for line in shapes(plot, "polyline")]
    assert ["dashed" in name for name in classes] == [False] * 8 + [True]
    assert classes[0].split()[1] == classes[8].split()[1]
    assert len(shapes(plot, "rect")) == 8 + 2, "the swatch of the ninth is in two parts"


def test_a_long_name_stands_above_its_interval_and_takes_no_width_from_it():
    """So the text of a plot is as large on a phone whatever the names."""
    wide, narrow = (interval_plot([Estimate(name, 0.4, 0.3, 0.5)], title="t", x_label="AP") for name in (LONG, "a"))
    assert shapes(wide, "svg")[0]["viewBox"] == shapes(narrow, "svg")[0]["viewBox"]
    (interval,) = (line for line in shapes(wide, "line") if line["class"].startswith("line"))
    (name,) = (text for text in shapes(wide, "text") if text.get("class") == "over")
    assert float(name["y"]) < float(interval["y1"]) - 4


def test_names_beside_points_are_right_of_the_axis_and_off_the_intervals():
    points = [(Estimate(f"{LONG} {i}", 0.4 + 0.01 * i, 0.3, 0.5 + 0.01 * i), 1.0 + i % 3) for i in range(4)]
    plot = cost_plot(points, title="t", x_label="cost", y_label="AP")
    intervals = [line for line in shapes(plot, "line") if line["class"].startswith("line")]
    axis = min(float(line["x1"]) for line in shapes(plot, "line") if line["class"] == "base")
    names = [text for text in shapes(plot, "text") if text.get("class") == "over"]
    assert names
    for text in names:
        left, baseline = float(text["x"]), float(text["y"])
        assert left >= axis
        own = intervals[int(next(p for p in points if p[0].name in titles(plot, text))[0].name[-1])]
        beside = left >= float(own["x1"]) or left + 6.2 * 40 <= float(own["x1"])
        outside = baseline <= float(own["y2"]) or baseline - 11 >= float(own["y1"])
        assert beside or outside


def titles(plot: str, text: dict[str, str]) -> str:
    """The tooltip of a text, which is its whole name."""
    return next(
        title.text or ""
        for element in ElementTree.fromstring(plot).iter("text")
        if element.attrib == text
        for title in element.iter("title")
    )
