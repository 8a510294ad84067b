"""SIGINT, SIGTERM and SIGUSR1 as a request to stop that the training loop polls."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import TypeVar

T = TypeVar("T")

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
EXIT_CODE = 143  # 128 + SIGTERM, whichever of the three came


class Stopped(KeyboardInterrupt):
    """Training ended on a signal, after saving. The message says how to go on."""


class _WaitInterrupted(BaseException):
    """Leaves a wait for data. Not an Exception: a loader that skips broken images must not catch it."""


class StopRequest:
    """Notes the first signal; the second one leaves at once, without saving.

    The handlers are in place inside the `with` block, and only in the main thread (Python allows no other).
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
        """The next item; None at the end, or when a signal came before or during the wait for it."""
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
            return  # a data worker that inherited this handler: it goes when its parent goes
        if self.requested:
            os._exit(EXIT_CODE)
        self.signal_name = signal.Signals(number).name
        # A signal to the whole process group ends the data workers too, and torch would raise wherever we are.
        self._previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if self._waiting:
            raise _WaitInterrupted
