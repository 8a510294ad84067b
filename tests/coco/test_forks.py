"""What forks compute comes in its order, until one has nothing more or has ended; none outlives the process."""

from __future__ import annotations

import os
import signal

import pytest

from resdet.coco.forks import forked


@pytest.mark.parametrize("processes", [1, 3])
def test_results_come_in_their_order_until_the_first_that_is_none(processes: int) -> None:
    def square(number: int) -> int | None:
        return number**2 if number < 7 else None

    assert list(forked(square, processes)) == [0, 1, 4, 9, 16, 25, 36]


def test_the_results_end_before_that_of_a_process_that_is_killed() -> None:
    def killed_at_4(number: int) -> int:
        if number == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    assert list(forked(killed_at_4, 3)) == [0, 1, 2, 3]


def test_no_process_stays_when_the_iterator_is_closed() -> None:
    results = forked(lambda _: os.getpid(), 2)
    processes = {next(results), next(results)}
    assert len(processes) == 2
    results.close()
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_no_process_outlives_one_that_is_killed() -> None:
    reading, writing = os.pipe()
    if not (child := os.fork()):
        results = forked(lambda _: bytes(2**20), 2)
        _ = next(results)
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(writing)
    _ = os.waitpid(child, 0)
    assert os.read(reading, 1) == b"", "the pipe ends when no process has its other end any more"
    os.close(reading)
