"""The page of a service in headless Chromium, with answers from a stand-in: it fits a phone, also with 300 objects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from PIL import Image

import resdet.serving
from browser import CHROMIUM, Browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
PAGE = Path(resdet.serving.__file__).with_name("page.html")
NAMES = [f"a rather long name of class {i}" for i in range(80)]
CODES = {code: {} for code in ("200", "400", "408", "413", "415", "422", "503")}
LISTED = """new Promise((resolve) => {
  const list = document.getElementById("list");
  const look = () => { if (!list.hidden) resolve([list.open, list.querySelectorAll("tr").length]); };
  new MutationObserver(look).observe(list, { attributes: true });
  look();
})"""


@contextmanager
def stand_in(objects: int) -> Iterator[str]:
    picture = BytesIO()
    Image.new("RGB", (1600, 900), "gray").save(picture, "PNG")
    found = [{"class": NAMES[i % 80], "score": 0.9, "box": [100.25, 200.25, 1300.25, 800.25]} for i in range(objects)]
    one = {"description": "What the request does. " * 4, "parameters": [{"name": "score"}], "responses": CODES}
    content: dict[str, Any] = {
        "/health": {"detector": "/a/long/path" * 9, "classes": NAMES},
        "/openapi.json": {"paths": {"/predict": {"post": one}, "/draw": {"post": one}}},
        "/predict": {"width": 1600, "height": 900, "objects": found},
    }

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _ = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self.path.partition("?")[0]
            body = {"/": PAGE.read_bytes(), "/draw": picture.getvalue()}.get(path)
            body = json.dumps(content.get(path, {})).encode() if body is None else body
            self.send_response(200)
            self.send_header("Content-Type", "text/html" if path == "/" else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            _ = self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("objects", "is_open"), [(3, True), (300, False)])
def test_the_page_fits_a_phone_and_folds_a_long_list(objects: int, *, is_open: bool, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with stand_in(objects) as address:
        browser = Browser(tmp_path / "profile")
        try:
            browser.narrow(390)
            browser.open(address)
            browser.choose_file("#drop input", tmp_path / "a.png")
            assert browser.value(LISTED) == [is_open, objects + 1]
            assert browser.value("[document.documentElement.scrollWidth, innerWidth]") == [390, 390]
            assert browser.told("Runtime.exceptionThrown") == []
        finally:
            browser.close()
