"""A bounded load test of a running service: how many requests a second, how long the slowest take, and is any lost."""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

PATIENCE = 120.0  # seconds for an answer
MALFORMED = (b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(100))
PAUSE = 0.05  # seconds before a request that found no place is sent again


@dataclass
class Load:
    """What became of the requests: seconds of those that were answered by status, and those without an answer."""

    seconds: dict[int, list[float]] = field(default_factory=dict)
    malformed: Counter[int] = field(default_factory=Counter)  # by status
    again: int = 0  # how often a request found no place
    lost: int = 0
    whole: float = 0.0  # seconds of the test

    @property
    def answered(self) -> int:
        return len(self.seconds.get(200, ()))

    def lines(self) -> list[str]:
        """The figures as people read them."""
        taken = np.array(self.seconds.get(200, [0.0])) * 1000
        p50, p99 = np.quantile(taken, (0.5, 0.99))
        others = {status: len(each) for status, each in self.seconds.items() if status != 200}
        return [
            f"{self.answered} images in {self.whole:.1f} s: {self.answered / self.whole:.2f} images/s",
            f"time of a request: median {p50:.0f} ms, p99 {p99:.0f} ms, most {taken.max():.0f} ms",
            f"sent again after 503: {self.again}; other answers: {others or 'none'}; lost: {self.lost}",
            f"malformed requests by status: {dict(self.malformed)}",
        ]


def run_load(address: str, images: Sequence[bytes], *, requests: int, clients: int) -> Load:
    """Sends so many images, each client one after the other; before every tenth one a malformed request."""
    load, lock = Load(), threading.Lock()
    parts = urllib.parse.urlsplit(address)

    def ask(body: bytes) -> tuple[int, float]:
        start = time.perf_counter()
        connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=PATIENCE)
        try:
            connection.request("POST", "/predict", body)
            answer = connection.getresponse()
            _ = json.loads(answer.read())
            return answer.status, time.perf_counter() - start
        finally:
            connection.close()

    def until_it_has_a_place(body: bytes) -> tuple[int, float]:
        while (found := ask(body))[0] == 503:
            with lock:
                load.again += 1
            time.sleep(PAUSE)
        return found

    def one(number: int) -> None:
        try:
            if number % 10 == 0:
                status, _ = until_it_has_a_place(MALFORMED[number // 10 % len(MALFORMED)])
                with lock:
                    load.malformed[status] += 1
            status, seconds = until_it_has_a_place(images[number % len(images)])
            with lock:
                load.seconds.setdefault(status, []).append(seconds)
        except (OSError, http.client.HTTPException, ValueError):
            with lock:
                load.lost += 1

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        _ = list(pool.map(one, range(requests)))
    load.whole = time.perf_counter() - start
    return load
