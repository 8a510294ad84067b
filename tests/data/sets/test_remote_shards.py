"""A data set in shards is fetched from its address once, and is then that of a local folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.client import HTTPConnection, HTTPResponse
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import HTTPSHandler, Request

import fsspec
import numpy as np
import pytest

from layout_folders import coco_2017
from resdet.config import load_config
from resdet.data.batches.loader import open_split
from resdet.data.sets.coco import CocoDataset
from resdet.errors import UserError
from resdet.workflows.convert_data import convert_data


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("RESDET_CACHE", str(folder))
    return folder / "shards"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    coco_2017(tmp_path / "set")
    return convert_data(tmp_path / "set", "shards", tmp_path / "served").folder


class Handler(SimpleHTTPRequestHandler):
    asked: list[str]

    def log_message(self, format: str, *args: object) -> None:
        self.asked.append(self.path)


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def address(folder: Path, asked: list[str]) -> Iterator[str]:
    handler = type("OwnHandler", (Handler,), {"asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def opened(path: str | Path, split: str = "train") -> CocoDataset:
    return open_split(load_config(overrides=[f"data.path={path}"]).data, split)


def refused(path: str) -> str:
    with pytest.raises(UserError) as caught:
        _ = opened(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_shards_are_fetched_once(folder: Path, address: str, asked: list[str]) -> None:
    local = opened(folder)
    for _ in range(2):
        for given in (address, f"{address}/shards.json"):
            fetched = opened(given)
            np.testing.assert_array_equal(fetched.boxes, local.boxes)
            assert list(fetched.file_names) == list(local.file_names)
            assert not fetched.missing.any()
    assert sorted(path for path in asked if path.endswith(".tar")) == ["/train-000000.tar", "/val-000000.tar"]


def test_another_list_at_an_address_is_another_data_set(folder: Path, address: str, asked: list[str]) -> None:
    _ = opened(address)
    file = folder / "shards.json"
    _ = file.write_text(file.read_text() + "\n")
    _ = opened(address)
    assert asked.count("/train-000000.tar") == 2


def test_a_shard_that_is_cut_short_on_its_way_is_one_line_and_not_kept(folder: Path, address: str, cache: Path) -> None:
    shard = folder / "train-000000.tar"
    data = shard.read_bytes()
    _ = shard.write_bytes(data[:-9000])
    message = refused(address)
    assert message.startswith(f"{address}/train-000000.tar: ")
    assert not [path for path in cache.rglob("*") if path.suffix in (".tar", ".tmp")]
    _ = shard.write_bytes(data)
    assert len(opened(address)) > 0


def test_what_cannot_be_fetched_is_one_line(folder: Path, address: str) -> None:
    assert "/none/shards.json: cannot be fetched (HTTP Error 404" in refused(f"{address}/none")
    (folder / "val-000000.tar").unlink()
    assert "val-000000.tar: cannot be fetched (HTTP Error 404" in refused(address)
    assert "http://127.0.0.1:1/x/shards.json: cannot be fetched" in refused("http://127.0.0.1:1/x")
    assert "nonsense://x/shards.json: " in refused("nonsense://x")


def test_an_https_address_does_not_lead_to_plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    class Away(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", f"http://{self.headers['Host']}/elsewhere.json")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing is printed."""

    def without_certificate(self: HTTPSHandler, req: Request) -> HTTPResponse:
        return self.do_open(HTTPConnection, req)  # pyright: ignore[reportReturnType, reportArgumentType]

    monkeypatch.setattr(HTTPSHandler, "https_open", without_certificate)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Away)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        message = refused(f"https://127.0.0.1:{server.server_address[1]}/set")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert "/set/shards.json: refused, it redirects to 'http://" in message


def test_any_address_of_fsspec(folder: Path) -> None:
    memory = fsspec.filesystem("memory")
    for file in folder.iterdir():
        memory.pipe(f"/bucket/{file.name}", file.read_bytes())
    np.testing.assert_array_equal(opened("memory://bucket", "val").boxes, opened(folder, "val").boxes)
