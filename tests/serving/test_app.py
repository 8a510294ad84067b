"""The service over HTTP, on this machine: right answers, a 4xx for every malformed request, and none is lost."""

from __future__ import annotations

import http.client
import io
import json
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import uvicorn
from PIL import Image

from resdet.config import load_config
from resdet.models.build.detector import build_model
from resdet.predict.prediction import Prediction
from resdet.predict.predictor import Predictor
from resdet.predict.sources import Source
from resdet.serving.app import PAGE, Limits, build_app
from resdet.serving.load import run_load

ROOT = Path(__file__).parents[2]
PATIENT = 120.0  # seconds


class Running:
    """A server in a thread, at a free port."""

    def __init__(self, detector: Any, limits: Limits) -> None:
        self.app = build_app(detector, name="a detector", limits=limits)
        self.server = uvicorn.Server(uvicorn.Config(self.app, log_level="critical", timeout_graceful_shutdown=60))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]}, daemon=True)
        self.thread.start()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENT)
        try:
            connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read(), {key.lower(): value for key, value in answer.getheaders()}
        finally:
            connection.close()

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(PATIENT)
        self.listener.close()


Start = Callable[..., Running]


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[Running] = []

    def begin(detector: Any, **limits: Any) -> Running:
        running.append(Running(detector, Limits(**limits)))
        return running[-1]

    yield begin
    for each in running:
        each.stop()


@pytest.fixture(scope="module")
def detector() -> Predictor:
    """Random weights, which find something everywhere."""
    _ = torch.manual_seed(0)
    model = build_model(load_config(ROOT / "configs/nano.yaml").model, 3)
    return Predictor(
        model, class_names=("cat", "dog", "猫"), category_ids=(5, 17, 90), short_side=64, max_side=64, size_divisor=32
    )


class StandIn:
    """A detector that finds nothing, and begins when it may."""

    class_names = ("cat",)

    def __init__(self) -> None:
        self.may_begin, self.begun, self.fails = threading.Event(), threading.Semaphore(0), False

    def __call__(self, images: list[np.ndarray]) -> list[Prediction]:
        self.begun.release()
        assert self.may_begin.wait(PATIENT)
        if self.fails:
            raise RuntimeError("out of memory")
        return [nothing(image) for image in images]


def nothing(image: np.ndarray) -> Prediction:
    height, width = image.shape[:2]
    boxes, scores, labels = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
    return Prediction(boxes, scores, labels, None, height, width, ("cat",), (1,), Source("x", lambda: image), image)


def encoded(image: np.ndarray, kind: str = "PNG") -> bytes:
    data = io.BytesIO()
    Image.fromarray(image).save(data, kind)
    return data.getvalue()


PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
PNG = encoded(PICTURE)


def test_the_answer_is_what_the_detector_finds(start: Start, detector: Predictor) -> None:
    status, body, headers = start(detector).ask("POST", "/predict?score=0.3&class=cat&class=%E7%8C%AB&max=20", PNG)
    expected = detector(PICTURE).chosen(score=0.3, classes=["cat", "猫"], most=20)
    assert (status, headers["content-type"]) == (200, "application/json")
    found = json.loads(body)
    assert (found["height"], found["width"]) == (48, 64)
    assert [one["class"] for one in found["objects"]] == expected.names != []
    assert [one["category_id"] for one in found["objects"]] == [one.category_id for one in expected]
    np.testing.assert_allclose([one["box"] for one in found["objects"]], expected.boxes, atol=1e-3)
    np.testing.assert_allclose([one["score"] for one in found["objects"]], expected.scores, atol=1e-5)


def test_a_drawing_is_the_prediction_s(start: Start, detector: Predictor) -> None:
    status, body, headers = start(detector).ask("POST", "/draw?score=0.3", PNG)
    assert (status, headers["content-type"]) == (200, "image/jpeg")
    with Image.open(io.BytesIO(body)) as picture:
        drawn = np.asarray(picture.convert("RGB")).astype(int)
    assert np.abs(drawn - np.asarray(detector(PICTURE).draw(score=0.3))).mean() < 5, "but for JPEG's losses"


def claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says to have so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


MALFORMED = {
    "nothing": ("POST", "/predict", b"", 422),
    "text": ("POST", "/predict", b"hello", 422),
    "a web page": ("POST", "/draw", b"<html>", 422),
    "half an image": ("POST", "/predict", PNG[: len(PNG) // 2], 422),
    "too many pixels": ("POST", "/predict", encoded(np.zeros((101, 100, 3), np.uint8)), 422),
    "a claim of 100 megapixels": ("POST", "/predict", claims(10_000, 10_000), 422),
    "a claim of 3 gigapixels": ("POST", "/predict", claims(60_000, 60_000), 422),
    "too many bytes": ("POST", "/predict", bytes(20_001), 413),
    "too many bytes without a length": ("POST", "/predict", iter([bytes(1000)] * 21), 413),
    "a score that is none": ("POST", "/predict?score=high", PNG, 422),
    "a score above 1": ("POST", "/predict?score=1.5", PNG, 422),
    "not a number": ("POST", "/predict?score=nan", PNG, 422),
    "no objects at most": ("POST", "/predict?max=0", PNG, 422),
    "a parameter that is not there": ("POST", "/predict?scor=0.1", PNG, 422),
    "a class that is not there": ("POST", "/predict?class=cats", PNG, 422),
    "another method": ("GET", "/predict", None, 405),
    "another path": ("GET", "/nothing/%1b[2J", None, 404),
    "a path outside": ("GET", "/../../etc/passwd", None, 404),
}


def test_every_malformed_request_is_a_4xx_with_a_reason_and_the_next_one_is_answered(
    start: Start, detector: Predictor
) -> None:
    server = start(detector, most_bytes=20_000, most_pixels=10_000)
    for name, (method, path, body, wanted) in MALFORMED.items():
        status, answer, _ = server.ask(method, path, body)
        assert (name, status) == (name, wanted)
        assert json.loads(answer)["detail"]
    assert server.ask("POST", "/predict", PNG)[0] == 200
    _, text, _ = server.ask("GET", "/metrics")
    assert b'resdet_requests_total{path="/predict",status="422"}' in text
    assert b'resdet_requests_total{path="other",status="404"} 2\n' in text


def test_what_is_no_http_does_no_harm(start: Start, detector: Predictor) -> None:
    server = start(detector)
    for garbage in (b"\x16\x03\x01\x02\x00", b"POST /predict HTTP/1.1\r\nContent-Length: -5\r\n\r\n", b"\r\n" * 50):
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENT) as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            assert b"200 OK" not in connection.recv(1000)
    assert server.ask("GET", "/health")[0] == 200


def test_a_request_of_2_gb_is_refused_before_it_is_sent(start: Start, detector: Predictor) -> None:
    server = start(detector)
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENT) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2147483648\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_does_not_come_is_a_408_and_one_that_breaks_off_does_no_harm(
    start: Start, detector: Predictor
) -> None:
    server = start(detector, seconds=0.3, places=1)
    half = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc"
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENT) as connection:
        connection.sendall(half)
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENT) as connection:
        connection.sendall(half)
    while (status := server.ask("POST", "/predict", PNG)[0]) == 503:  # until its place is free again
        pass
    assert status == 200


def test_requests_that_wait_are_predicted_together_and_none_is_lost(start: Start) -> None:
    detector = StandIn()
    server = start(detector, largest_batch=4, patience=0.0)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(server.ask, "POST", "/predict", PNG)
        assert detector.begun.acquire(timeout=PATIENT)
        batcher = server.app.state.service.batcher
        others = [pool.submit(server.ask, "POST", "/predict", PNG) for _ in range(6)]
        while batcher._waiting.qsize() < 6:
            pass
        detector.may_begin.set()
        assert [request.result(PATIENT)[0] for request in (first, *others)] == [200] * 7
    assert batcher.sizes == {1: 1, 4: 1, 2: 1}
    assert b'resdet_batches_total{size="4"} 1\n' in server.ask("GET", "/metrics")[1]


def test_a_request_without_a_place_is_a_503_and_those_inside_are_answered(start: Start) -> None:
    detector = StandIn()
    server = start(detector, places=1)
    with ThreadPoolExecutor(1) as pool:
        inside = pool.submit(server.ask, "POST", "/predict", PNG)
        assert detector.begun.acquire(timeout=PATIENT)
        status, _, headers = server.ask("POST", "/predict", PNG)
        assert (status, headers["retry-after"]) == (503, "1")
        assert server.ask("GET", "/health")[0] == 200, "who watches needs no place"
        detector.may_begin.set()
        assert inside.result(PATIENT)[0] == 200
    assert server.ask("POST", "/predict", PNG)[0] == 200


def test_an_error_of_the_detector_is_a_500_and_the_next_request_is_answered(start: Start) -> None:
    detector = StandIn()
    detector.may_begin.set()
    server = start(detector)
    detector.fails = True
    assert server.ask("POST", "/predict", PNG)[0] == 500
    detector.fails = False
    assert server.ask("POST", "/predict", PNG)[0] == 200
    assert b'resdet_requests_total{path="/predict",status="500"} 1\n' in server.ask("GET", "/metrics")[1]


def test_a_stop_answers_what_is_inside(start: Start) -> None:
    detector = StandIn()
    server = start(detector)
    with ThreadPoolExecutor(1) as pool:
        inside = pool.submit(server.ask, "POST", "/predict", PNG)
        assert detector.begun.acquire(timeout=PATIENT)
        server.server.should_exit = True
        detector.may_begin.set()
        assert inside.result(PATIENT)[0] == 200
    server.thread.join(PATIENT)
    assert not server.thread.is_alive()
    assert not server.app.state.service.batcher._thread.is_alive()


def test_health_and_the_description_say_what_there_is(start: Start, detector: Predictor) -> None:
    server = start(detector, most_bytes=123)
    health = json.loads(server.ask("GET", "/health")[1])
    assert (health["status"], health["detector"], health["classes"]) == ("ok", "a detector", ["cat", "dog", "猫"])
    assert health["limits"]["bytes"] == 123
    described = json.loads(server.ask("GET", "/openapi.json")[1])["paths"]
    assert set(described) == {"/predict", "/draw", "/health", "/metrics"}
    assert [each["name"] for each in described["/predict"]["post"]["parameters"]] == ["score", "class", "max"]
    assert {"413", "422", "503"} <= set(described["/predict"]["post"]["responses"])
    assert "image/jpeg" in described["/draw"]["post"]["requestBody"]["content"]


def test_the_page_needs_no_other_host(start: Start, detector: Predictor) -> None:
    status, body, headers = start(detector).ask("GET", "/")
    assert (status, body) == (200, PAGE.read_bytes())
    assert headers["content-type"].startswith("text/html")
    assert b"//" not in body, "no address"


def test_a_load_of_images_and_malformed_requests_is_answered_completely(start: Start) -> None:
    detector = StandIn()
    detector.may_begin.set()
    server = start(detector, places=3, largest_batch=2)
    load = run_load(f"http://127.0.0.1:{server.port}", [PNG], requests=40, clients=6)
    assert (load.answered, load.lost, dict(load.malformed)) == (40, 0, {422: 4})
    assert set(load.seconds) == {200}
    assert "40 images in" in load.lines()[0]
