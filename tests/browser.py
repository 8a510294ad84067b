"""A page in headless Chromium, driven over a pipe (DevTools protocol)."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE = 300  # seconds without a word


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

    def open(self, url: str) -> None:
        _ = self.ask("Page.navigate", url=url)
        while not self.told("Page.loadEventFired"):
            self.events.append(self._next())

    def value(self, expression: str) -> Any:
        """The value of an expression; of a promise, what it comes to."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def choose_file(self, selector: str, path: Path) -> None:
        """Gives a file to an input of the page, as a person who chooses it."""
        root = self.ask("DOM.getDocument")["root"]["nodeId"]
        node = self.ask("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        _ = self.ask("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def narrow(self, width: int, height: int = 844) -> None:
        """Shows pages as a telephone of this width does."""
        _ = self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=True)

    def screenshot(self, path: Path, width: int, height: int, *, dark: bool = False) -> None:
        """A picture of the whole page, as a window of this width shows it."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        _ = self.ask("Emulation.setEmulatedMedia", features=[scheme])
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        _ = self.ask("Emulation.setDeviceMetricsOverride", **metrics)
        data = self.ask("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        _ = path.write_bytes(base64.b64decode(data))

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
