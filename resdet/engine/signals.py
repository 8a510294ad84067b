"""Handles SIGINT, SIGTERM and SIGUSR1 as a request to stop, which the training loop polls."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TypeVar

T = TypeVar("T")

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
EXIT_CODE = 143  # 128 + SIGTERM, for each of the three signals


class Stopped(KeyboardInterrupt):
    """Training was ended by a signal, after saving. The message contains the command to continue."""


class _WaitInterrupted(BaseException):
    """Ends a wait for data. Not a subclass of Exception, because a loader that skips broken images must not
    catch it.
    """


@contextmanager
def stopping() -> Iterator[None]:
    """Inside the block a signal is an exception, Stopped, as Ctrl-C is in Python: for work that has nothing to save.
    Training replaces these handlers by `StopRequest`.
    """
    if threading.current_thread() is not threading.main_thread():  # Python permits handlers in the main thread only
        yield
        return
    process = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process:  # not in a data worker that has not yet replaced this handler, which it inherited
            raise Stopped(f"stopped by {signal.Signals(number).name}")

    previous = {number: signal.signal(number, handle) for number in HANDLED}
    try:
        yield
    finally:
        for number, handler in previous.items():
            _ = signal.signal(number, handler)


class StopRequest:
    """Records the first signal; the second one ends the process at once, without saving.

    The handlers are installed inside the `with` block, and only in the main thread (Python permits no other).
    """

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._waiting = False
        self._process = os.getpid()
        self._previous: dict[signal.Signals, object] = {}

    @property
    def requested(self) -> bool:
        return self.signal_name is not None

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in HANDLED}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def next(self, items: Iterator[T]) -> T | None:
        """The next item; None at the end, or if a signal arrived before or during the wait for it."""
        if self.requested:
            return None
        try:
            self._waiting = True
            try:
                return next(items, None)
            finally:
                self._waiting = False
        except _WaitInterrupted:
            return None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a data worker that has not yet replaced this handler, which it inherited
        if self.requested:
            os._exit(EXIT_CODE)
        self.signal_name = signal.Signals(number).name
        if self._waiting:
            raise _WaitInterrupted
