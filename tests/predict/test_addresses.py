"""Images by address, from a server on this machine that stands for those of the internet."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import io
import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resdet import downloads
from resdet.cli.main import main
from resdet.data.images.decode import ImageError
from resdet.predict import addresses
from resdet.predict.addresses import read_address
from resdet.predict.predictor import Predictor


class Plain(urllib.request.HTTPSHandler):
    """https to the server below, which has no certificate, over a plain connection."""

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(http.client.HTTPConnection, req)  # pyright: ignore


def photo() -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)).save(data, "PNG")
    return data.getvalue()


class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name = self.path.partition("?")[0].removeprefix("/").partition(".")[0]
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client has seen enough
            getattr(self, f"page_{name}")()

    def send(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        _ = self.wfile.write(content)

    def page_photo(self) -> None:
        self.send(photo())

    def page_moved(self) -> None:
        self.send(b"", 302, Location=f"https://{self.headers['Host']}/photo.png")

    def page_file(self) -> None:
        self.send(b"", 302, Location="file:///etc/passwd")

    def page_plain(self) -> None:
        self.send(b"", 302, Location=f"http://{self.headers['Host']}/photo.png")

    def page_circle(self) -> None:
        self.send(b"", 302, Location="/circle")

    def page_large(self) -> None:
        self.send(b"", Content_Length="99999999999")

    def page_endless(self) -> None:
        self.send(b"")
        while True:
            _ = self.wfile.write(bytes(2**16))

    def page_slow(self) -> None:
        self.send(b"")
        for _ in range(2400):  # two minutes, unless the client has gone
            _ = self.wfile.write(b"x")
            time.sleep(0.05)

    def page_stalled(self) -> None:
        self.send(b"x")
        time.sleep(120)

    def page_web(self) -> None:
        self.send(b"<!doctype html><html></html>")

    def page_missing(self) -> None:
        self.send(b"", 404)

    def page_empty(self) -> None:
        self.send(b"")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(addresses, "HANDLERS", (Plain,))
    monkeypatch.setattr(downloads, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(addresses, "WHOLE_SECONDS", 1.0)
    monkeypatch.setattr(addresses, "LARGEST", 10 * 2**20)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"https://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("page", ["photo.png", "photo.png?size=1", "moved"])
def test_an_address_gives_the_image(address: str, page: str) -> None:
    wanted = np.asarray(Image.open(io.BytesIO(photo())))
    assert np.array_equal(read_address(f"{address}/{page}"), wanted)


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("file", "is not allowed"), ("plain", "not https"), ("circle", "cannot be fetched"), ("large", "more than"),
        ("endless", "more than"), ("slow", "took more than"), ("stalled", "cannot be fetched"),
        ("web", "is a web page"), ("missing", "404"), ("empty", "is empty"),
    ],
)  # fmt: skip
def test_what_is_no_image_is_one_line_within_seconds(address: str, page: str, said: str) -> None:
    start = time.monotonic()
    with pytest.raises(ImageError, match=said) as raised:
        _ = read_address(f"{address}/{page}")
    assert time.monotonic() - start < 60
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("given", ["http://127.0.0.1/a.jpg", "https://127.0.0.1:1/a.jpg", "https://[/a.jpg"])
def test_another_scheme_a_dead_host_and_nonsense_are_one_line(given: str) -> None:
    start = time.monotonic()
    with pytest.raises(ImageError):
        _ = read_address(given)
    assert time.monotonic() - start < 60


def test_a_predictor_takes_an_address_as_one_image(address: str, predictor: Predictor) -> None:
    prediction = predictor(f"{address}/photo.png")
    assert (prediction.height, prediction.width) == (40, 50)
    assert prediction.path is None
    assert prediction.source.name == f"{address}/photo.png"


def test_the_command_takes_addresses_beside_files_and_leaves_out_a_dead_one(
    address: str, tmp_path: Path, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _ = (tmp_path / "a.png").write_bytes(photo())
    output = tmp_path / "out"
    given = [str(tmp_path / "a.png"), f"{address}/photo.png", f"{address}/missing.png"]
    assert main(["predict", str(saved), *given, "--output", str(output)]) == 2
    images = json.loads((output / "images.json").read_text())
    assert [image["file_name"] for image in images["images"]] == given[:2]
    assert [image["drawing"] for image in images["images"]] == ["a.jpg", "photo.jpg"]
    assert [image["file_name"] for image in images["skipped"]] == given[2:]
    assert "404" in capsys.readouterr().out
