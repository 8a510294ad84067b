"""Every part of a page fits a phone of 390 pixels, whatever the names; a part that is wider scrolls by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import CHROMIUM, Browser
from resdet.analysis.pages.interval_plots import Estimate, cost_plot, interval_plot
from resdet.analysis.pages.matrix import matrix_plot
from resdet.analysis.pages.page import (
    Headline,
    Page,
    Section,
    code,
    columns,
    details,
    key,
    name_of,
    note,
    render_page,
    table,
)
from resdet.analysis.pages.plots import Line, bar_plot, line_plot

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
NAME = "timm/tf_efficientnetv2_xl.in21k_ft_in1k"
LONG = f"{NAME}_{NAME}"
ESTIMATES = [Estimate(f"{LONG}{i}", 0.4, 0.3, 0.5, (0.35, 0.45)) for i in range(12)]
PARTS = {
    "headlines": Page("t", [], headlines=[Headline(LONG, "0.4", LONG)] * 4, facts=[LONG, "/a/path" * 20]),
    "title": Page(LONG, [Section("a", LONG, note(LONG), LONG)], footer=LONG, summary=note(LONG)),
    "bars": bar_plot([(LONG, 0.5)], title=LONG, details=["nothing found the object: 123456 times"]),
    "table": table(["class", LONG], [[name_of(LONG), 0.5], [key("data.augment.short_side"), 0.5]], caption=LONG),
    "lines": line_plot([Line(f"{LONG}{i}", [0.0, 1.0], [0.0, 1.0]) for i in range(9)], title=LONG, x_label=LONG),
    "intervals": interval_plot(ESTIMATES, title=LONG, x_label="AP", zero=True),
    "costs": cost_plot([(one, 1.0 + i) for i, one in enumerate(ESTIMATES)], title=LONG, x_label="G", y_label="AP"),
    "matrix": matrix_plot([[1.0] * 17] * 17, [LONG] * 17, [LONG] * 17, title=LONG),
    "others": columns(code(LONG * 3), details(LONG, note(LONG)), table(["a"], [[name_of(LONG)]])),
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    browser.narrow(390)
    yield browser
    browser.close()


@pytest.mark.parametrize("part", PARTS)
def test_a_part_fits(part: str, browser: Browser, tmp_path: Path) -> None:
    content = PARTS[part]
    page = content if isinstance(content, Page) else Page("t", [Section("a", "A", content)])
    _ = (tmp_path / "page.html").write_text(render_page(page), encoding="utf-8")
    browser.events.clear()
    browser.open((tmp_path / "page.html").as_uri())
    assert browser.value("[document.documentElement.scrollWidth, innerWidth]") == [390, 390]
