"""The report in headless Chromium: nothing complains, the slider works."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from browser import CHROMIUM, Browser
from resdet.analysis.report import write_report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
SHOWN = "document.querySelectorAll('.mark.found:not(.below)').length"
SLIDE = "(() => {{ const s = document.getElementById('score'); s.value = {}; s.dispatchEvent(new Event('input')) }})()"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    browser = Browser(tmp_path / "profile")
    yield browser
    browser.close()


def test_nothing_is_run_or_fetched_and_the_slider_hides_and_shows_boxes(
    make_run: Callable[..., Path], browser: Browser
):
    browser.open(write_report(make_run()).as_uri())
    assert browser.value("document.title") == "my <b>run"

    assert browser.value(SHOWN) == 2  # of three: at 0.5 the one at 0.3 is hidden
    for score, expected in ((0, 3), (0.85, 1), (1, 0), (0.3, 3), (0.31, 2)):
        _ = browser.value(SLIDE.format(score))
        assert browser.value(SHOWN) == expected
        assert browser.value("document.querySelector('.shown').textContent") == f"{expected} of 3 boxes shown"
        assert browser.value("document.querySelector('output').textContent") == f"{score:.2f}"
    visible = "[...document.querySelectorAll('.mark.found rect')].filter((r) => r.getBoundingClientRect().width).length"
    assert browser.value(visible) == 2 * 2  # a halo and a box each

    choose = SLIDE.replace("score", "truth").replace("input", "change")
    left = "document.querySelector('.pair .left').getBoundingClientRect().width > 0"
    over = "document.querySelector('.pair .truth-over .mark rect').getBoundingClientRect().width > 0"
    for place, expected in (("beside", [True, False]), ("over", [False, True]), ("hidden", [False, False])):
        _ = browser.value(choose.format(repr(place)))
        assert [browser.value(left), browser.value(over)] == expected

    time.sleep(0.1)
    assert browser.told("Log.", "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Page.javascriptDialog") == []
    fetched = [event["params"]["request"]["url"] for event in browser.told("Network.requestWillBeSent")]
    assert [url[:5] for url in fetched if not url.startswith("data:")] == ["file:"]  # the page itself


def test_a_phone_needs_no_scrolling_to_the_side(make_run: Callable[..., Path], browser: Browser):
    """390 pixels, the width of a phone of today; wide tables are scrolled by themselves."""
    browser.narrow(390)
    browser.open(write_report(make_run()).as_uri())
    assert browser.value("document.documentElement.scrollWidth") == 390
    assert browser.value("innerWidth") == 390
