"""Trains the runs of a comparison, each in its own process and several at a time; the whole can be stopped and
continued.
"""

from __future__ import annotations

import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from resdet.analysis.compare.places import Ending, Place, Work
from resdet.analysis.compare.plan import PlannedRun
from resdet.analysis.compare.training_child import MISTAKE
from resdet.config import to_yaml
from resdet.engine.run_folder import read_run
from resdet.engine.signals import EXIT_CODE, Stopped, StopRequest
from resdet.files import replace_file, writing
from resdet.folder_lock import FolderLock
from resdet.plugins import loaded_plugins
from resdet.ray_cluster import MORE_TRIES

POLL_SECONDS = 0.2


@contextmanager
def alone_in(output: Path) -> Iterator[None]:
    """Creates the folder of a comparison and locks it against other comparisons. Raises UserError if another one is
    active.
    """
    with FolderLock(output, "compare") as lock:
        lock.take()
        with writing(output):
            for folder in ("configs", "logs", "runs"):
                (output / folder).mkdir(parents=True, exist_ok=True)
        yield


@dataclass
class _Active:
    run: PlannedRun
    number: int
    place: Place
    work: Work
    log: Path
    started: float


def train_all(
    runs: Sequence[PlannedRun], output: Path, places: Sequence[Place], *, say: Callable[[str], None]
) -> dict[str, str]:
    """Trains the runs of `runs` that are not finished; returns the reason of the failure for each failed run, by name.

    A run that fails does not keep the others from going on; one whose place was lost goes on in another. Raises Stopped
    after a signal, when all have saved.
    """
    waiting = deque(enumerate(runs, start=1))
    free, active = list(places), list[_Active]()
    failures: dict[str, str] = {}
    lost: Counter[int] = Counter()
    seconds: list[float] = []
    with StopRequest() as stop:
        try:
            while (waiting or active) and not stop.requested:
                while waiting and free:
                    number, run = waiting.popleft()
                    active.append(_start(run, number, output, free.pop(0)))
                    head = f"[{number}/{len(runs)}] {run.name}:"
                    say(f"{head} training {run.config.train.length}, log: {active[-1].log}")
                time.sleep(POLL_SECONDS)
                for one in list(active):
                    if (ending := one.work.ending()) is None:
                        continue
                    active.remove(one)
                    free.append(one.place)
                    head = f"[{one.number}/{len(runs)}] {one.run.name}:"
                    if ending.code is None and lost[one.number] < MORE_TRIES:
                        lost[one.number] += 1
                        waiting.appendleft((one.number, one.run))
                        say(f"{head} {ending.where} was lost; the run goes on in another place")
                        continue
                    seconds.append(time.monotonic() - one.started)
                    if reason := _failure(ending, one.log):
                        failures[one.run.name] = reason
                        say(f"{head} failed: {reason}")
                    else:
                        left = len(waiting) + len(active)
                        say(f"{head} {_finished_line(one.run, ending, seconds, left, len(places))}")
        finally:
            for one in active:
                one.work.leave()
            for one in active:
                one.work.end()
        if stop.requested:
            raise Stopped(
                f"stopped by {stop.signal_name}: {len(active)} runs have saved, {len(waiting)} had not begun;"
                " the same command goes on"
            )
    return failures


def _start(run: PlannedRun, number: int, output: Path, place: Place) -> _Active:
    config = run.config
    if place.device:
        config = replace(config, train=replace(config.train, device=place.device))
    config_file, log = output / "configs" / f"{run.name}.yaml", output / "logs" / f"{run.name}.txt"
    replace_file(config_file, to_yaml(config).encode())
    work = place.start([str(config_file), str(run.folder), *map(str, loaded_plugins())], log)
    return _Active(run, number, place, work, log, time.monotonic())


def _failure(ending: Ending, log: Path) -> str | None:
    """The reason why a run that has ended is not finished; None if it is."""
    code = ending.code
    if code == 0:
        return None
    if code is None:
        return f"{ending.where} was lost, as {MORE_TRIES} others before; the same command goes on ({log})"
    if code < 0:
        name = signal.Signals(-code).name
        memory = ": perhaps it ran out of memory" if name == "SIGKILL" else ""
        return f"was ended by {name}{memory} ({log})"
    if code == EXIT_CODE:
        return f"was stopped from outside and has saved; the same command goes on ({log})"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if code == MISTAKE and errors:
        return errors[-1]
    return f"ended with exit code {code}; {log} says more"


def _finished_line(run: PlannedRun, ending: Ending, seconds: Sequence[float], left: int, places: int) -> str:
    took = timedelta(seconds=round(seconds[-1]))
    ahead = timedelta(seconds=round(sum(seconds) / len(seconds) * left / places))
    where = f" on {ending.where}" if ending.where else ""
    return f"{described_ap(run)} in {took}{where}" + (f"; {left} to go, about {ahead}" if left else "")


def described_ap(run: PlannedRun) -> str:
    """The main figure of a finished run, in words."""
    ap = read_run(run.folder).figures.get("bbox/AP")
    return "box AP undefined" if ap is None else f"box AP {ap:.4f}"
