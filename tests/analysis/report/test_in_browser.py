"""The report in headless Chromium, driven over a pipe (DevTools protocol): nothing complains, the slider works."""

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resdet.analysis.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
PATIENCE = 60  # seconds without a word
SHOWN = "document.querySelectorAll('.mark.found:not(.below)').length"
SLIDE = "(() => {{ const s = document.getElementById('score'); s.value = {}; s.dispatchEvent(new Event('input')) }})()"


class Browser:
    """One page of a headless browser; `events` are what it told without being asked."""

    def __init__(self, profile: Path) -> None:
        theirs_in, self._write = os.pipe()
        self._read, theirs_out = os.pipe()
        assert CHROMIUM is not None
        command = (
            f'exec "{CHROMIUM}" --headless --no-sandbox --disable-gpu --no-first-run --remote-debugging-pipe'
            f' "--user-data-dir={profile}" 3<&{theirs_in} 4>&{theirs_out}'
        )
        self._process = subprocess.Popen(
            ["bash", "-c", command],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._number, self._buffer, self._session = 0, b"", ""
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Page", "Network"):
            _ = self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._number, "method": method, "params": params, **session}
        _ = os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self.events.append(answer)
        return answer["result"]

    def open(self, page: Path) -> None:
        _ = self.ask("Page.navigate", url=page.as_uri())
        while not self.told("Page.loadEventFired"):
            self.events.append(self._next())

    def value(self, expression: str) -> Any:
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def told(self, *prefixes: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["method"].startswith(prefixes)]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], PATIENCE)
            assert ready, "the browser is silent"
            data = os.read(self._read, 1 << 16)
            assert data, "the browser is gone"
            self._buffer += data
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def close(self) -> None:
        self._session = ""
        _ = self.ask("Browser.close")
        _ = self._process.wait(PATIENCE)
        os.close(self._read)
        os.close(self._write)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    browser = Browser(tmp_path / "profile")
    yield browser
    browser.close()


def test_nothing_is_run_or_fetched_and_the_slider_hides_and_shows_boxes(
    make_run: Callable[..., Path], browser: Browser
):
    browser.open(write_report(make_run()))
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
