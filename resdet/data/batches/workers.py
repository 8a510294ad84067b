"""Runs the processes that read batches. The end of one of them is noticed while a batch is waited for, never in the
middle of an update, and is one line.
"""

from __future__ import annotations

import copy
import errno
import multiprocessing
import multiprocessing.context
import multiprocessing.queues
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, NoReturn, TypeVar

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from resdet.errors import UserError

T = TypeVar("T")

WORKER_TIMEOUT = 300  # a worker without a batch for this number of seconds counts as stuck
LOOKS_EVERY = 2  # seconds between two looks at the workers while a batch is waited for
ENDING = 1.0  # seconds between a lost connection to a worker and its death
NO_ROOM, NO_FILES = 74, 75  # the exit codes of a worker that cannot pass on a batch
TOO_MANY_FILES = (os.strerror(errno.EMFILE), "items of ancdata")  # what torch says in a worker and in this process
FEW_FILES = "the limit of open files is too low; raise it (ulimit -n 1024), or set data.workers=0"
REMEDY = "give more memory or shared memory (/dev/shm), or set data.workers=0"


class Batches(Generic[T]):
    """The items of `reader` for each of `keys`, read by `workers` processes; by this process if that is 0.

    Iteration raises UserError if a worker has ended or is stuck.
    """

    def __init__(self, reader: Dataset[T], keys: Iterable[Any], *, workers: int, pin_memory: bool) -> None:
        self._processes: list[multiprocessing.Process] = []
        self._loader: DataLoader[T] = DataLoader(
            reader,
            batch_size=None,  # the reader makes whole batches
            sampler=keys,
            num_workers=workers,
            persistent_workers=workers > 0,
            timeout=LOOKS_EVERY if workers else 0,
            worker_init_fn=_start_worker,
            multiprocessing_context=_context(self._processes) if workers else None,
            pin_memory=pin_memory,
            # Each iteration draws a seed: not from torch's own generator, whose numbers a resume has to repeat.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[T]:
        batches = _started(self._loader)
        since = time.monotonic()
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:
                self._check(error, waited=time.monotonic() - since)
                continue
            yield batch
            since = time.monotonic()

    def _check(self, error: Exception, *, waited: float) -> None:
        """Returns if the batch is only late. Raises UserError for a worker that ended or is stuck, otherwise the
        error.
        """
        late = "DataLoader timed out" in str(error)  # torch has no type for it
        if ended := self._ended(wait=0.0 if late else ENDING):
            remedy = FEW_FILES if ended.exitcode == NO_FILES else REMEDY
            raise UserError(f"{_described(ended)}; {remedy}") from None
        if _lacks_files(error):
            raise UserError(f"a batch cannot be taken from a data worker; {FEW_FILES}") from None
        if not late:
            raise error
        if waited >= WORKER_TIMEOUT:
            raise UserError(f"no data worker has given a batch for {waited:.0f} s; {REMEDY}") from None

    def _ended(self, *, wait: float) -> multiprocessing.Process | None:
        until = time.monotonic() + wait
        while True:
            ended = [process for process in self._processes if process.exitcode not in (None, 0)]
            if ended or time.monotonic() >= until:
                return ended[0] if ended else None
            time.sleep(0.05)


def _context(processes: list[multiprocessing.Process]) -> multiprocessing.context.BaseContext:
    """A context that adds the processes that it makes to `processes`."""
    context = copy.copy(multiprocessing.get_context())

    def make(*arguments: Any, **options: Any) -> _Worker:
        processes.append(worker := _Worker(*arguments, **options))
        return worker

    context.Process = make  # pyright: ignore[reportAttributeAccessIssue]
    return context


class _Worker(multiprocessing.Process):
    """A worker ignores the signals that ask a run to stop, so one that is still there in the end has to be killed."""

    def start(self) -> None:
        super().start()
        # Python itself calls this at its exit, then waits for the process.
        self._popen.terminate = self._popen.kill  # pyright: ignore[reportAttributeAccessIssue]

    def terminate(self) -> None:
        self.kill()


def _described(process: multiprocessing.Process) -> str:
    """How a worker ended."""
    code, who = process.exitcode or 0, f"a data worker (process {process.pid})"
    if code == NO_FILES:
        return f"{who} could not pass on its batch"
    if code == NO_ROOM:
        return f"{who} could not pass on its batch, perhaps because shared memory is full"
    if code < 0:
        name = signal.Signals(-code).name
        return f"{who} was ended by {name}" + ", perhaps because memory ran out" * (name in ("SIGKILL", "SIGBUS"))
    return f"{who} ended with exit code {code}"


def _started(loader: DataLoader[T]) -> Iterator[T]:
    """Starts the workers without torch's handler of their death, which raises in the main thread wherever that is, for
    example in the backward pass.
    """
    if threading.current_thread() is not threading.main_thread():
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    batches = iter(loader)
    _ = signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)
    return batches


def _start_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # each worker process uses one core
    # A terminal signals the whole process group, and a batch system every process. The trainer alone decides how to
    # react; a worker ends when the trainer ends it, or has ended.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        _ = signal.signal(number, signal.SIG_IGN)
    # Python prints a traceback and drops the batch, for which the trainer would wait in vain.
    multiprocessing.queues.Queue._on_queue_feeder_error = _leave  # pyright: ignore[reportAttributeAccessIssue]
    sys.excepthook = _leave_without_files  # Python's thread that hands over open files calls it, and goes on


def _leave(*arguments: object) -> NoReturn:
    """Called by Python with the queue, the error and the batch."""
    os._exit(NO_FILES if any(map(_lacks_files, arguments)) else NO_ROOM)


def _leave_without_files(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if _lacks_files(error):
        os._exit(NO_FILES)
    sys.__excepthook__(kind, error, traceback)


def _lacks_files(error: object) -> bool:
    return isinstance(error, Exception) and any(words in str(error) for words in TOO_MANY_FILES)
