"""Where the runs of a comparison are trained: processes of this machine, or tasks on the nodes of a Ray cluster."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from resdet.analysis.compare.training_child import end_child, start_child
from resdet.cores import usable_cores
from resdet.errors import UserError
from resdet.folder_lock import FolderLock
from resdet.ray_cluster import Cluster, NodeLost, Room, Task, connected, this_node

TASK_POLL_SECONDS = 0.2
UNLOCK_SECONDS = 120.0  # for the process of a lost node to save and to leave the folder of the run


@dataclass(frozen=True)
class Ending:
    """How a run ended: the exit code of its process (None: lost with its place), and where, if that says something."""

    code: int | None
    where: str = ""


@runtime_checkable
class Work(Protocol):
    """A run that is being trained."""

    def ending(self) -> Ending | None:
        """None while the run goes on."""
        ...

    def leave(self) -> None:
        """Asks the run to save and to end; does not wait for it."""
        ...

    def end(self) -> None:
        """Waits until the run has ended."""
        ...


@runtime_checkable
class Place(Protocol):
    """A place for one run at a time; `device` takes the place of its train.device, if there is one."""

    @property
    def device(self) -> str | None: ...

    def start(self, arguments: Sequence[str], log: Path) -> Work:
        """Starts a run: the arguments are those of `training_child`, whose words are appended to `log`."""
        ...


@dataclass(frozen=True)
class Slot:
    """A place on this machine: the environment variables of the process of a run, and its device."""

    environment: dict[str, str] = field(default_factory=dict)
    device: str | None = None

    def start(self, arguments: Sequence[str], log: Path) -> Child:
        """Starts the process of a run."""
        return Child(start_child(arguments, log, self.environment))


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


@dataclass(frozen=True)
class Child:
    """The process of a run on this machine."""

    process: subprocess.Popen[bytes]

    def ending(self) -> Ending | None:
        """None while the process runs."""
        return None if self.process.poll() is None else Ending(end_child(self.process))

    def leave(self) -> None:
        """It continues without this process."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        """Waits for it."""
        _ = end_child(self.process)


@dataclass(frozen=True)
class RoomOnCluster:
    """A place on a node that Ray chooses."""

    cluster: Cluster
    room: Room
    device: None = None

    def start(self, arguments: Sequence[str], log: Path) -> TaskOfRun:
        """Gives the run to the cluster."""
        return TaskOfRun(self.cluster.submit(train_in_task, arguments, log, room=self.room))


@dataclass(frozen=True)
class TaskOfRun:
    """A run that a task trains, in a process of its own."""

    task: Task

    def ending(self) -> Ending | None:
        """None while the task runs, or waits for a node."""
        if not self.task.wait(0):
            return None
        try:
            return Ending(*self.task.result())
        except NodeLost:
            return Ending(None, "its node")

    def leave(self) -> None:
        """Stops the task, which then stops its process."""
        self.task.stop()

    def end(self) -> None:
        """Waits for it."""
        _ = self.task.wait()


def train_in_task(arguments: Sequence[str], log: Path) -> tuple[int, str]:
    """Trains a run to its end; returns the exit code of its process and the name of the node. After KeyboardInterrupt,
    by which Ray stops a task, and when this process dies, the process of the run saves.
    """
    node = f"node {this_node()}"
    with log.open("a", encoding="utf-8") as file:
        _ = file.write(f"{node}\n")
    _wait_until_free(Path(arguments[1]))
    child = start_child(arguments, log, {})
    try:
        while child.poll() is None:
            time.sleep(TASK_POLL_SECONDS)
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
        code = end_child(child)
    return code, node


def _wait_until_free(run: Path) -> None:
    """A process that lost its node may still be saving; after that time the new one says that another is at work."""
    end = time.monotonic() + UNLOCK_SECONDS
    while time.monotonic() < end:
        try:
            with FolderLock(run, "training") as lock:
                return lock.take()
        except UserError:
            time.sleep(1)


@contextmanager
def places_on_cluster(address: str | None, devices: Sequence[str], output: Path) -> Iterator[list[RoomOnCluster]]:
    """As many places as the cluster has room for runs on `devices`, the train.device of each run.

    Raises UserError for a cluster that is not there, a device that no node has, and an output that a node does not see.
    """
    with connected(address) as cluster:
        rooms = [cluster.room(device) for device in devices]
        room = max(rooms, key=lambda each: each.gpus)
        cluster.check_shared(output)
        yield [RoomOnCluster(cluster, room)] * room.at_once
