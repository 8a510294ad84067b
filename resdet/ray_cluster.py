"""Tasks on a Ray cluster that exists already: `--engine ray`. Nothing else imports Ray, which is an extra.

A task is a function of resdet that a worker process of a node calls. It ends with its node: when the raylet, the
parent of the workers, is gone, the worker leaves at once, so that the task can be given to another node.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resdet.errors import UserError, row_of
from resdet.files import make_folder, writing
from resdet.text import said_by

ENGINES = {"local": "the processes of this machine", "ray": "the nodes of a Ray cluster"}
MORE_TRIES = 2  # of a task whose node died
LOSSES = ("NodeDiedError", "WorkerCrashedError", "OutOfMemoryError")
ANSWER_SECONDS = 5.0
WATCH_SECONDS = 0.5
POLL_SECONDS = 0.2
NO_CLUSTER = "--address {}: no Ray cluster answers; start one with ray start --head, or correct the address"


class NodeLost(Exception):
    """The node or the worker of a task has died, and with it the task."""


@dataclass(frozen=True)
class Room:
    """The CPUs and GPUs of one task, and the number of such tasks that the cluster has room for."""

    cpus: int
    gpus: int
    at_once: int


class Task:
    """A task that was given to the cluster."""

    def __init__(self, ray: Any, reference: Any) -> None:
        self._ray, self._reference = ray, reference

    def wait(self, seconds: float | None = None) -> bool:
        """Whether the task has ended, at the latest after `seconds` (None: without end)."""
        return bool(self._ray.wait([self._reference], timeout=seconds)[0])

    def stop(self) -> None:
        """Raises KeyboardInterrupt in the task, or takes it back if it waits for a node; `wait` tells when it ended."""
        if not self.wait(0):  # to cancel a task that has just ended can abort this process (Ray 2.60)
            self._ray.cancel(self._reference)

    def result(self) -> Any:
        """What the function returned, or the UserError that it raised. Raises NodeLost."""
        try:
            return self._ray.get(self._reference)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            raise
        except tuple(getattr(self._ray.exceptions, name) for name in LOSSES) as error:
            raise NodeLost(said_by(error)) from None


class Cluster:
    """The nodes that are alive and have CPUs for tasks."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def nodes(self) -> list[dict[str, Any]]:
        """Ray's description of each. Raises UserError if there is none."""
        nodes = [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        if not nodes:
            raise UserError("no node of the Ray cluster has a CPU for tasks; add one: ray start --address HOST:PORT")
        return nodes

    def room(self, device: str) -> Room:
        """A task gets one GPU and its part of the CPUs of a node; on the CPU, as many CPUs as the smallest node has.

        `device` is train.device. Raises UserError for cuda where no node has a GPU.
        """
        resources = [node["Resources"] for node in self.nodes()]
        with_gpu = [each for each in resources if each.get("GPU", 0) >= 1]
        if device == "cuda" and not with_gpu:
            raise UserError("train.device=cuda, but no node of the Ray cluster has a GPU; set train.device=auto or cpu")
        if device == "cpu" or not with_gpu:
            cpus = min(int(each["CPU"]) for each in resources)
            return Room(cpus, 0, sum(int(each["CPU"]) // cpus for each in resources))
        cpus = min(max(1, int(each["CPU"] // each["GPU"])) for each in with_gpu)
        return Room(cpus, 1, sum(min(int(each["GPU"]), int(each["CPU"]) // cpus) for each in with_gpu))

    def submit(
        self,
        function: Callable[..., Any],
        *given: Any,
        room: Room,
        folder: Path | None = None,
        node: str | None = None,
    ) -> Task:
        """Gives `function(*given)` to a node with `room`, or to the one with the id `node`.

        Tasks are spread over the nodes. The function works in `folder`, or in the current folder of this process.
        """
        strategy: Any = "SPREAD"
        if node is not None:
            strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        task = self._ray.remote(num_cpus=room.cpus, num_gpus=room.gpus, max_retries=0, scheduling_strategy=strategy)(
            _in_task
        )
        return Task(self._ray, task.remote(str(folder or Path.cwd()), function, *given))

    def results(self, function: Callable[..., Any], calls: Sequence[Sequence[Any]], *, room: Room) -> Iterator[Any]:
        """The results of `function` for all calls, in their order; those whose node died are given to another one.

        Raises UserError if all tries of a call are lost. After an error or a signal all tasks are stopped.
        """
        tasks = [self.submit(function, *call, room=room) for call in calls]
        try:
            for number, call in enumerate(calls):
                lost = 0
                while True:
                    while not tasks[number].wait(0):
                        time.sleep(POLL_SECONDS)  # where a signal is resdet's Stopped; in Ray it is "interrupted"
                    try:
                        result = tasks[number].result()
                    except NodeLost as why:
                        lost += 1
                        if lost > MORE_TRIES:
                            raise UserError(f"a task was lost {lost} times with its node: {why}") from None
                        tasks[number] = self.submit(function, *call, room=room)
                        continue
                    yield result
                    break
        finally:
            for task in tasks:
                task.stop()
            for task in tasks:
                _ = task.wait()

    def check_shared(self, folder: Path) -> None:
        """Creates the folder. Raises UserError, naming the node, if one does not see it or the current folder."""
        with writing(folder):
            make_folder(folder)
            token = folder.resolve() / f".seen-{secrets.token_hex(8)}"
            token.touch()
        try:
            paths = {str(token): str(folder), str(Path.cwd()): str(Path.cwd())}
            asked = {
                node_name(node["NodeManagerHostname"], node["NodeID"]): self.submit(
                    unseen, list(paths), room=Room(0, 0, 0), folder=Path("/"), node=node["NodeID"]
                )
                for node in self.nodes()
            }
            for name, task in asked.items():
                for path in task.result():
                    raise UserError(
                        f"node {name} does not see the folder {paths[path]} of {platform.node()}; choose an --output,"
                        " and a folder for the command, that every node has at the same path"
                    )
        finally:
            token.unlink()


def unseen(paths: Sequence[str]) -> list[str]:
    """The paths that are not there."""
    return [path for path in paths if not Path(path).exists()]


def node_name(host: str, number: str) -> str:
    """A node in words; several may have one host."""
    return f"{host} ({number[:8]})"


def this_node() -> str:
    """The node of a task, which calls this."""
    return node_name(platform.node(), importlib.import_module("ray").get_runtime_context().get_node_id())


def _in_task(folder: str, function: Callable[..., Any], *given: Any) -> Any:
    threading.Thread(target=_leave_with_node, args=(os.getppid(),), daemon=True).start()
    with chdir(folder):
        return function(*given)


def _leave_with_node(raylet: int) -> None:
    """A worker would go on for a while after its raylet was killed, beside the task's next try on another node."""
    while os.getppid() == raylet:
        time.sleep(WATCH_SECONDS)
    os._exit(1)


def check_engine(engine: str, address: str | None) -> None:
    """Raises UserError for an unknown engine, for one that is not installed, and for an address without a cluster."""
    _ = row_of(ENGINES, engine, "--engine")
    if engine == "local":
        if address is not None:
            raise UserError(f"--address {address} is that of a Ray cluster; add --engine ray, or leave it out")
    elif importlib.util.find_spec("ray") is None:
        raise UserError("--engine ray needs Ray: pip install 'resdet[ray]', here and on all nodes")


@contextmanager
def connected(address: str | None) -> Iterator[Cluster]:
    """The cluster of which this machine is a node; `address` is the HOST:PORT of its head (None: as RAY_ADDRESS says,
    or the one that runs here). A program that is connected already stays so.

    Raises UserError if there is no such cluster.
    """
    check_engine("ray", address)
    address = address or os.environ.get("RAY_ADDRESS") or "auto"
    if address != "auto":
        check_answer(address)
    handler = signal.getsignal(signal.SIGTERM)
    ray = importlib.import_module("ray")
    _ = importlib.import_module("ray.util.scheduling_strategies")
    if ray.is_initialized():
        yield Cluster(ray)
        return
    try:
        _ = ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except ConnectionError as error:
        raise UserError(f"{NO_CLUSTER.format(address)} ({said_by(error)})") from None
    finally:
        if threading.current_thread() is threading.main_thread():
            _ = signal.signal(signal.SIGTERM, handler)  # Ray has put its own in the place of resdet's
    try:
        yield Cluster(ray)
    finally:
        ray.shutdown()


def check_answer(address: str) -> None:
    """Raises UserError if nothing answers at HOST:PORT within a few seconds; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise UserError(
            f"--address {address}: give HOST:PORT of the head of the cluster, as ray start --head prints it"
        )
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"{NO_CLUSTER.format(address)} ({said_by(error)})") from None
