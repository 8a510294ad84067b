"""Trains the runs of a comparison, each in its own process and several at a time; the whole can be stopped and
continued.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import torch

from resdet.analysis.compare.plan import PlannedRun
from resdet.analysis.compare.training_child import MISTAKE
from resdet.config import to_yaml
from resdet.cores import usable_cores
from resdet.engine.run_folder import read_run
from resdet.engine.signals import EXIT_CODE, Stopped, StopRequest
from resdet.errors import UserError
from resdet.files import replace_file, writing
from resdet.folder_lock import FolderLock
from resdet.plugins import loaded_plugins

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Slot:
    """A place for one run at a time: the environment variables of its process and its device."""

    environment: dict[str, str] = field(default_factory=dict)
    device: str | None = None


def make_slots(devices: Sequence[str], jobs: int) -> list[Slot]:
    """`jobs` slots on each of `devices` (cpu, cuda:0, cuda:1 ...), or, without `devices`, on the device of
    train.device.

    Slots of a CPU share its cores, unless OMP_NUM_THREADS is set. Raises UserError for a device that is not there.
    """
    if jobs < 1:
        raise UserError(f"--jobs {jobs} must be at least 1")
    slots = [_slot(device) for device in devices or [None] for _ in range(jobs)]
    if len(slots) > 1 and "OMP_NUM_THREADS" not in os.environ:
        threads = str(max(1, usable_cores() // len(slots)))
        return [replace(slot, environment={**slot.environment, "OMP_NUM_THREADS": threads}) for slot in slots]
    return slots


def _slot(device: str | None) -> Slot:
    if device is None or device == "cpu":
        return Slot(device=device)
    match = re.fullmatch(r"cuda:(\d+)", device)
    if not match:
        raise UserError(f"--devices {device}: write cpu, or cuda:0 cuda:1 ... for one or several GPUs")
    index, available = int(match[1]), torch.cuda.device_count()
    if index >= available:
        raise UserError(f"--devices {device}: torch sees {available} CUDA devices here, counted from cuda:0")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return Slot({"CUDA_VISIBLE_DEVICES": visible[index] if visible != [""] else str(index)}, "cuda")


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
class _Child:
    run: PlannedRun
    number: int
    process: subprocess.Popen[bytes]
    log: Path
    started: float

    def leave(self) -> None:
        """Asks the process to save and to end; it continues without this process."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        """Waits for the process; its standard input stays open until then, because closing it would stop
        the process."""
        _ = self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()


def train_all(
    runs: Sequence[PlannedRun], output: Path, slots: Sequence[Slot], *, say: Callable[[str], None]
) -> dict[str, str]:
    """Trains the runs of `runs` that are not finished; returns the reason of the failure for each failed run, by name.

    A run that fails does not keep the others from going on. Raises Stopped after a signal, when all have saved.
    """
    waiting = deque(enumerate(runs, start=1))
    free, active = list(slots), dict[int, tuple[Slot, _Child]]()
    failures: dict[str, str] = {}
    seconds: list[float] = []
    with StopRequest() as stop:
        try:
            while (waiting or active) and not stop.requested:
                while waiting and free:
                    number, run = waiting.popleft()
                    slot = free.pop(0)
                    child = _start(run, number, output, slot)
                    active[number] = slot, child
                    say(f"[{number}/{len(runs)}] {run.name}: training {run.config.train.length}, log: {child.log}")
                time.sleep(POLL_SECONDS)
                for number, (slot, child) in list(active.items()):
                    if child.process.poll() is None:
                        continue
                    child.end()
                    del active[number]
                    free.append(slot)
                    seconds.append(time.monotonic() - child.started)
                    if reason := _failure(child):
                        failures[child.run.name] = reason
                    left = len(waiting) + len(active)
                    say(_finished_line(child, len(runs), reason, seconds, left, len(slots)))
        finally:
            for _, child in active.values():
                child.leave()
            for _, child in active.values():
                child.end()
        if stop.requested:
            raise Stopped(
                f"stopped by {stop.signal_name}: {len(active)} runs have saved, {len(waiting)} had not begun;"
                " the same command goes on"
            )
    return failures


def _start(run: PlannedRun, number: int, output: Path, slot: Slot) -> _Child:
    """Starts a process in its own session: a Ctrl-C in the terminal reaches it only through this process, and only
    once.
    """
    config = run.config
    if slot.device:
        config = replace(config, train=replace(config.train, device=slot.device))
    config_file, log = output / "configs" / f"{run.name}.yaml", output / "logs" / f"{run.name}.txt"
    replace_file(config_file, to_yaml(config).encode())
    with log.open("ab") as file:
        process = subprocess.Popen(  # noqa: S603  # this Python, our own module
            [
                sys.executable,
                "-m",
                "resdet.analysis.compare.training_child",
                str(config_file),
                str(run.folder),
                *map(str, loaded_plugins()),
            ],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **slot.environment},
            start_new_session=True,
        )
    return _Child(run, number, process, log, time.monotonic())


def _failure(child: _Child) -> str | None:
    """The reason why a process that has ended did not finish its run; None if it finished."""
    code = child.process.returncode
    if code == 0:
        return None
    if code < 0:
        name = signal.Signals(-code).name
        memory = ": perhaps it ran out of memory" if name == "SIGKILL" else ""
        return f"was ended by {name}{memory} ({child.log})"
    if code == EXIT_CODE:
        return f"was stopped from outside and has saved; the same command goes on ({child.log})"
    lines = child.log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if code == MISTAKE and errors:
        return errors[-1]
    return f"ended with exit code {code}; {child.log} says more"


def _finished_line(
    child: _Child, runs: int, reason: str | None, seconds: Sequence[float], left: int, slots: int
) -> str:
    head = f"[{child.number}/{runs}] {child.run.name}:"
    if reason:
        return f"{head} failed: {reason}"
    took = timedelta(seconds=round(seconds[-1]))
    ahead = timedelta(seconds=round(sum(seconds) / len(seconds) * left / slots))
    return f"{head} {described_ap(child.run)} in {took}" + (f"; {left} to go, about {ahead}" if left else "")


def described_ap(run: PlannedRun) -> str:
    """The main figure of a finished run, in words."""
    ap = read_run(run.folder).figures.get("bbox/AP")
    return "box AP undefined" if ap is None else f"box AP {ap:.4f}"
