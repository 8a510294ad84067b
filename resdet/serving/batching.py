"""Predicts the images of many requests together: a bounded queue, and one thread that takes from it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Given = TypeVar("Given")
Found = TypeVar("Found")


class Full(Exception):
    """No place is free; the request can be sent again later."""


class Places:
    """The number of requests that may be inside at the same time, which bounds memory."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = threading.BoundedSemaphore(count)

    def __enter__(self) -> Places:
        """Raises Full."""
        if not self._free.acquire(blocking=False):
            raise Full
        return self

    def __exit__(self, *_: object) -> None:
        self._free.release()


class Batcher(Generic[Given, Found]):
    """`predict` gets up to `largest` of the items that wait; it waits up to `patience` seconds for a second one.

    An error of `predict` is that of each item of the batch, and the thread goes on. `close` finishes what waits.
    """

    def __init__(self, predict: Callable[[Sequence[Given]], Sequence[Found]], *, largest: int, patience: float) -> None:
        self.predict, self.largest, self.patience = predict, largest, patience
        self.sizes: dict[int, int] = {}  # how often a batch had this size
        self._waiting: queue.SimpleQueue[tuple[Given, Future[Found]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    def add(self, item: Given) -> Future[Found]:
        """The result of an item, when its batch is done."""
        result: Future[Found] = Future()
        self._waiting.put((item, result))
        return result

    def close(self) -> None:
        """Waits until all items that were added are done."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            self.sizes[len(batch)] = self.sizes.get(len(batch), 0) + 1
            try:
                found = self.predict([item for item, _ in batch])
                for (_, result), one in zip(batch, found, strict=True):
                    result.set_result(one)
            except Exception as error:  # it is raised where each result is awaited
                for _, result in batch:
                    if not result.done():
                        result.set_exception(error)

    def _next(self) -> list[tuple[Given, Future[Found]]] | None:
        """The next batch, without the items that nobody waits for; None at the end."""
        batch: list[tuple[Given, Future[Found]]] = []
        end = float("inf")
        while len(batch) < self.largest:
            try:
                entry = self._waiting.get(timeout=None if not batch else max(0.0, end - time.monotonic()))
            except queue.Empty:
                break
            if entry is None:
                if not batch:
                    return None
                self._waiting.put(None)  # for the next call
                break
            if entry[1].set_running_or_notify_cancel():
                batch.append(entry)
                end = min(end, time.monotonic() + self.patience)
        return batch
