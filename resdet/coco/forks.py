"""Computes the parts of a long list in several processes, which are forks of this one."""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import signal
import sys
import warnings
from collections.abc import Callable, Generator
from itertools import count
from multiprocessing.connection import Connection
from typing import TypeVar

from resdet.cores import usable_cores

T = TypeVar("T")

MOST = 8  # processes: with more, the process that collects is the slowest


def usable_processes() -> int:
    """The number of processes that may compute at a time: 1 where none can be forked."""
    if sys.platform != "linux" or multiprocessing.current_process().daemon:
        return 1
    return min(usable_cores(), MOST)


def forked(work: Callable[[int], T | None], processes: int) -> Generator[T, None, None]:
    """`work(0)`, `work(1)`, ... until the first that is None, computed by so many processes; results are pickled.

    Also ends before the result of a process that has ended, so the caller can go on by itself. When the iterator is
    closed, the processes are ended.
    """
    context = multiprocessing.get_context("fork")
    ends: list[Connection] = []
    workers: list[multiprocessing.process.BaseProcess] = []
    try:
        for first in range(processes):
            end, other = context.Pipe(duplex=False)
            ends.append(end)
            arguments = (work, range(first, sys.maxsize, processes), other, tuple(ends))
            worker = context.Process(target=_compute, args=arguments, daemon=True)
            with warnings.catch_warnings():
                # Python 3.12 warns where there are threads. A fork has none of them, and takes no lock of theirs.
                warnings.filterwarnings("ignore", ".*multi-threaded", DeprecationWarning)
                worker.start()
            other.close()
            workers.append(worker)
        for number in count():
            try:
                result = ends[number % processes].recv()
            except EOFError:
                return
            if result is None:
                return
            yield result
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
        for end in ends:
            end.close()


def _compute(work: Callable[[int], T | None], numbers: range, end: Connection, others: tuple[Connection, ...]) -> None:
    """Runs in a fork, until it is killed or nobody is left to receive."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        _ = signal.signal(number, signal.SIG_IGN)  # the process that collects decides
    for other in others:
        other.close()  # otherwise the end of the process that collects would not be noticed
    for number in numbers:
        result = work(number)
        try:
            end.send(result)
        except (BrokenPipeError, ConnectionResetError):
            return
        if result is None:
            return
