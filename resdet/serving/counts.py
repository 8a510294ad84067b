"""Counts requests, and gives the counts as Prometheus reads them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping

BOUNDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # seconds


class Counts:
    """The numbers of requests by path and status, and how long they took. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests: Counter[tuple[str, int]] = Counter()
        self.within = [0] * (len(BOUNDS) + 1)  # by the first bound that is not exceeded
        self.seconds = 0.0

    def add(self, path: str, status: int, seconds: float) -> None:
        with self._lock:
            self.requests[path, status] += 1
            self.seconds += seconds
            self.within[next((i for i, bound in enumerate(BOUNDS) if seconds <= bound), len(BOUNDS))] += 1

    def text(self, batches: Mapping[int, int]) -> str:
        """Prometheus' text format; `batches` is how often a batch had a size."""
        with self._lock:
            requests, within, seconds = dict(self.requests), list(self.within), self.seconds
        lines = ["# TYPE resdet_requests_total counter"]
        lines += [f'resdet_requests_total{{path="{p}",status="{s}"}} {n}' for (p, s), n in sorted(requests.items())]
        lines += ["# TYPE resdet_request_seconds histogram"]
        for number, bound in enumerate((*map(str, BOUNDS), "+Inf"), start=1):
            lines.append(f'resdet_request_seconds_bucket{{le="{bound}"}} {sum(within[:number])}')
        lines += [f"resdet_request_seconds_sum {seconds:.6f}", f"resdet_request_seconds_count {sum(within)}"]
        lines += ["# TYPE resdet_batches_total counter"]
        lines += [f'resdet_batches_total{{size="{size}"}} {n}' for size, n in sorted(batches.items())]
        return "\n".join(lines) + "\n"
