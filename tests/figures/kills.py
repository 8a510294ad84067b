"""Kills trainings at random moments and resumes them until they end: are the weights those of a run without a kill?
Every second kill waits for the next save after its moment, on a disk that is slow to sync, and comes at any time in it.

python tests/figures/kills.py [KILLS_WITH_EACH_NUMBER_OF_WORKERS]
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from runs import Config, checkpoints, ended, free_port, nano, newest_step, over, saves, started, weights_of

STEPS = 60
LONGEST = 1.5  # seconds from a run's first step to its kill
SYNC = 0.03  # seconds that a slow disk takes to sync a file or a folder


def slow_disk() -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        time.sleep(SYNC)
        real(descriptor)

    os.fsync = fsync


def killed(folder: Path, kills: int, *, workers: int, processes: int) -> tuple[int, int, int]:
    """Kills during saves, runs that ended with the weights of the run without a kill, and runs."""
    config = nano(f"train.steps={STEPS}", f"data.workers={workers}", f"train.batch_size={2 * processes}")
    rng, done, in_saves, equal, runs = random.Random(workers + 10 * processes), 0, 0, 0, 0
    clean = folder / "clean"
    assert lives(config, clean, processes, wait=None) == 0, (folder / "clean.0.log").read_text()
    expected = weights_of(clean)
    while done < kills:
        run, code = folder / f"run{runs}", -9
        while code:
            wait, before = rng.uniform(0, LONGEST) if done < kills else None, saves(run)
            code = lives(config, run, processes, wait=wait, aims=done % 2 == 1)
            if code == -signal.SIGKILL:
                done, in_saves = done + 1, in_saves + bool(saves(run) - before)
                if checkpoints(run):
                    _ = newest_step(run)  # raises if a checkpoint with a final name is damaged
            elif code:
                raise SystemExit((folder / f"{run.name}.0.log").read_text())
        runs += 1
        equal += weights_of(run) == expected
    return in_saves, equal, runs


def lives(config: Config, run: Path, processes: int, *, wait: float | None, aims: bool = False) -> int:
    """Trains until the end, or for so long after it began to work in its folder, and with `aims` until the next save
    has begun; the exit code of the first process.
    """
    port = free_port()
    before = slow_disk if aims and wait is not None else None
    children = [started(config, run, rank=rank, size=processes, port=port, before=before) for rank in range(processes)]
    if wait is not None:
        lock, log = run / ".lock", run / "log.txt"
        since = log.stat().st_mtime_ns if log.exists() else 0
        while not (lock.exists() and log.exists() and log.stat().st_mtime_ns > since):
            time.sleep(0.005)
            if over(children[0]):
                break
        time.sleep(wait)
        if aims:
            end, left = time.monotonic() + 20 * LONGEST, saves(run)
            while not saves(run) - left and time.monotonic() < end and not over(children[0]):
                time.sleep(0.002)
            time.sleep(wait / LONGEST * 5 * SYNC)
        for child in children:
            os.kill(child, signal.SIGKILL)
    codes = [ended(child) for child in children]
    return codes[0]


def main(count: str = "20") -> int:
    """Prints a line for each number of workers, and one for two processes."""
    bad = False
    for workers, processes in ((0, 1), (1, 1), (2, 1), (4, 1), (0, 2)):
        with tempfile.TemporaryDirectory(prefix="resdet-kills-") as folder:
            start = time.monotonic()
            in_saves, equal, runs = killed(Path(folder), int(count), workers=workers, processes=processes)
            print(
                f"{workers} workers, {processes} processes: {count} SIGKILLs, {in_saves} of them in a save;"
                f" {equal} of {runs} runs ended with the weights of a run without a kill"
                f" ({time.monotonic() - start:.0f} s)",
                flush=True,
            )
            bad |= equal < runs
    return int(bad)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
