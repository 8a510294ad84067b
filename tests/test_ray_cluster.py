"""Runs and predictions on a Ray cluster are those of this machine; a node that dies loses no run."""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from resdet.analysis.compare.places import Ending
from resdet.analysis.compare.plan import planned_runs, read_contestants
from resdet.analysis.compare.schedule import alone_in, train_all
from resdet.cli.main import main
from resdet.config import load_config
from resdet.engine.checkpoint import model_metadata, save_checkpoint
from resdet.errors import UserError
from resdet.models.build.detector import build_model
from resdet.ray_cluster import Cluster, NodeLost, Room, Task, connected

ROOT = Path(__file__).parents[1]
NANO = str(ROOT / "configs/nano.yaml")
TINY = [NANO, "train.device=cpu", "train.log_every=1", "data.shapes.val_images=4"]
BOTH = ["--backbones", "nano", "slow=nano:optim.lr=0.02", "--rounds", "0", "--resamples", "10"]
STOPPED, RESUMED = r"stopped by SIGTERM at step (\d+), saved", r"resumed from .* at step (\d+)"
PATIENCE = 240  # seconds; Ray starts slowly where two cores are busy


def with_ray(test: Callable[..., None]) -> Callable[..., None]:
    without = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="pip install 'resdet[ray]'")
    return pytest.mark.slow(pytest.mark.extra(without(test)))


# Without Ray


def test_without_the_extra_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    commands = (
        ["compare", *TINY, "--backbones", "nano"],
        ["predict", str(tmp_path), str(tmp_path / "a.jpg")],
    )
    for command in commands:
        assert main([*command, "--output", str(tmp_path / "out"), "--engine", "ray"]) == 2
        said = capsys.readouterr().err
        assert "pip install 'resdet[ray]'" in said
        assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def pretend_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a package of this name, and nothing in it."""
    module = ModuleType("ray")
    module.__spec__ = ModuleSpec("ray", None)
    monkeypatch.setitem(sys.modules, "ray", module)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--address", "head:6379"], "add --engine ray"),
        (["--engine", "ray", "--jobs", "2"], "--jobs and --devices are about one machine"),
        (["--engine", "ray", "--devices", "cpu"], "--jobs and --devices are about one machine"),
        (["--engine", "ray", "--address", "ray://head:10001"], "give HOST:PORT"),
        (["--engine", "ray", "--address", "head"], "give HOST:PORT"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(
    options: list[str],
    hint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pretend_ray(monkeypatch)
    assert main(["compare", *TINY, "--backbones", "nano", "--output", str(tmp_path / "out"), *options]) == 2
    said = capsys.readouterr().err
    assert hint in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--parts", "2"], "--parts 2 is about a Ray cluster"),
        (["--address", "head:6379"], "add --engine ray"),
        (["--engine", "ray", "--parts", "0"], "--parts 0 must be at least 1"),
        (["--engine", "ray", "--camera", "0"], "a camera is one of this machine"),
    ],
)
def test_options_of_predict_that_do_not_go_together_are_one_line(
    options: list[str],
    hint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pretend_ray(monkeypatch)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    assert main(["predict", str(tmp_path), str(tmp_path / "a.jpg"), *options]) == 2
    said = capsys.readouterr().err
    assert hint in said
    assert said.count("\n") == 1


def test_an_address_where_nothing_answers_is_one_line_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_ray(monkeypatch)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"  # bound, and nobody listens
        start = time.monotonic()
        with pytest.raises(UserError, match=rf"--address {address}: no Ray cluster answers; "), connected(address):
            pass
    assert time.monotonic() - start < 10


def test_nothing_imports_ray_before_it_is_asked_for() -> None:
    modules = "resdet.cli.compare, resdet.cli.predict, resdet.workflows.compare, resdet.workflows.predict"
    code = f"import sys; sys.modules['ray'] = None; import {modules}"
    _ = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


class StandIn:
    """What `Cluster` uses of Ray: tasks are called at once, and node-b has none of the folders of the others."""

    def __init__(self, *resources: dict[str, float]) -> None:
        self.resources = resources
        self.util = SimpleNamespace(
            scheduling_strategies=SimpleNamespace(NodeAffinitySchedulingStrategy=lambda node, soft: node)
        )

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {"Alive": True, "Resources": each, "NodeID": letter * 56, "NodeManagerHostname": f"node-{letter}"}
            for letter, each in zip("abc", self.resources, strict=False)
        ]

    def remote(self, **options: Any) -> Callable[[Any], Any]:
        far = options["scheduling_strategy"][0] == "b"

        def called(folder: str, function: Any, paths: list[str]) -> Any:
            return paths if far else function(paths)

        return lambda _: SimpleNamespace(remote=called)

    def get(self, reference: Any) -> Any:
        return reference


def test_a_node_that_does_not_see_the_folder_is_named(tmp_path: Path) -> None:
    Cluster(StandIn({"CPU": 1})).check_shared(tmp_path / "out")
    with pytest.raises(UserError, match=rf"^node node-b \(bbbbbbbb\) does not see the folder {tmp_path}/out of "):
        Cluster(StandIn({"CPU": 1}, {"CPU": 1})).check_shared(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_task_gets_a_gpu_with_its_part_of_the_cpus_or_a_node() -> None:
    mixed = Cluster(StandIn({"CPU": 4}, {"CPU": 64, "GPU": 8}, {"CPU": 0}))
    assert mixed.room("auto") == mixed.room("cuda") == Room(cpus=8, gpus=1, at_once=8)
    assert mixed.room("cpu") == Room(cpus=4, gpus=0, at_once=1 + 16)
    with pytest.raises(UserError, match="no node of the Ray cluster has a GPU"):
        _ = Cluster(StandIn({"CPU": 4})).room("cuda")
    with pytest.raises(UserError, match="no node of the Ray cluster has a CPU"):
        _ = Cluster(StandIn({"CPU": 0})).room("cpu")


class Forgetful(Cluster):
    """Loses the first tasks that it is given."""

    def __init__(self, losses: int) -> None:
        super().__init__(None)
        self.losses = losses

    def submit(self, function: Callable[..., Any], *given: Any, **_: Any) -> Task:
        self.losses -= 1
        return DoneTask(None if self.losses >= 0 else function(*given))


class DoneTask(Task):
    def __init__(self, value: Any) -> None:
        super().__init__(None, value)
        self.value = value

    def wait(self, seconds: float | None = None) -> bool:
        return True

    def stop(self) -> None:
        pass

    def result(self) -> Any:
        if self.value is None:
            raise NodeLost("the node is dead")
        return self.value


def test_a_lost_task_is_given_again_twice() -> None:
    room = Room(1, 0, 1)
    assert list(Forgetful(2).results(int, [("7",)], room=room)) == [7]
    assert list(Forgetful(1).results(int, [("7",), ("8",)], room=room)) == [7, 8]
    with pytest.raises(UserError, match="lost 3 times"):
        _ = list(Forgetful(3).results(int, [("7",)], room=room))


class LostPlace:
    """Every run that starts here is lost."""

    device = None

    def __init__(self) -> None:
        self.starts = 0

    def start(self, arguments: Sequence[str], log: Path) -> LostPlace:
        self.starts += 1
        return self

    def ending(self) -> Ending | None:
        return Ending(None, "its node")

    def leave(self) -> None: ...

    def end(self) -> None: ...


def test_a_run_whose_places_are_lost_is_tried_three_times_and_is_a_failure(tmp_path: Path) -> None:
    runs = planned_runs(read_contestants([NANO], [], ["nano"]), 1, tmp_path)
    place, lines = LostPlace(), list[str]()
    with alone_in(tmp_path):
        failures = train_all(runs, tmp_path, [place], say=lines.append)
    assert place.starts == 3
    assert list(failures) == ["nano-seed0"]
    assert [line for line in lines if "was lost; the run goes on in another place" in line] == [lines[1], lines[3]]


# With Ray


class Nodes:
    """A cluster of two nodes with a CPU each, beside the head, which has none."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster as LocalCluster  # pyright: ignore[reportMissingImports]

        self.small: dict[str, Any] = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
        self.cluster = LocalCluster(initialize_head=True, head_node_args={"num_cpus": 0, **self.small})
        self.workers = [self.cluster.add_node(num_cpus=1, **self.small) for _ in range(2)]
        self.address = self.cluster.address

    def kill(self, number: str, *, whole: bool) -> None:
        """Kills a node with its workers, or its raylet alone, as the kernel may do; adds another node."""
        (node,) = [each for each in self.workers if each.node_id.startswith(number)]
        if whole:
            self.cluster.remove_node(node, allow_graceful=False)
        else:
            node.all_processes["raylet"][0].process.kill()
        self.workers.remove(node)
        self.workers.append(self.cluster.add_node(num_cpus=1, **self.small))


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "RAY_DISABLE_DOCKER_CPU_WARNING": "1", "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
        }.items():  # fmt: skip
            patch.setenv(name, value)
        cluster = Nodes()
        yield cluster
        cluster.cluster.shutdown()
    _ = signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def started(nodes: Nodes) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `resdet`, on the cluster if asked; what a failed test leaves is killed."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str, ray: bool) -> subprocess.Popen[str]:
        where = ["--engine", "ray", "--address", nodes.address] if ray else []
        command = [sys.executable, "-m", "resdet", *arguments, *where]
        processes.append(
            subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        _ = process.communicate()


def finished(process: subprocess.Popen[str], code: int = 0) -> str:
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, said
    return said


def losses(run: Path) -> list[dict[str, float]]:
    """What was logged of each step, times and memory aside."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key == "step" or "loss" in key} for line in lines]


def nodes_of(log: Path) -> list[str]:
    """The ids of the nodes on which a run was, in order."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.partition("(")[2].rstrip(")") for line in lines if line.startswith("node ")]


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def steps_of(run: Path) -> int:
    metrics = run / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


@with_ray
def test_two_nodes_train_what_one_machine_does(tmp_path: Path, started: Any) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    wanted = ["compare", *TINY, "train.steps=6", *BOTH, "--output"]
    said = finished(started(*wanted, str(there), ray=True))
    _ = finished(started(*wanted, str(here), ray=False))
    for name in ("nano-seed0", "slow-seed0"):
        assert losses(there / "runs" / name) == losses(here / "runs" / name)
        assert f"{name}: box AP" in said
    used = [nodes_of(there / f"logs/{name}-seed0.txt") for name in ("nano", "slow")]
    assert [len(each) for each in used] == [1, 1]
    assert used[0] != used[1]
    assert all(f"({each[0]})" in said for each in used)
    ours, theirs = (json.loads((folder / "compare.json").read_text()) for folder in (there, here))
    figures = [[each["figures"] for each in content["contestants"]] for content in (ours, theirs)]
    assert figures[0] == figures[1]


@with_ray
def test_a_signal_saves_the_runs_on_the_nodes_and_they_can_go_on(tmp_path: Path, started: Any) -> None:
    output = tmp_path / "out"
    wanted = ["compare", *TINY, "train.steps=20000", *BOTH, "--output", str(output)]
    driver = started(*wanted, ray=True)
    runs = [output / "runs" / name for name in ("nano-seed0", "slow-seed0")]
    wait_for(lambda: all(steps_of(run) > 3 for run in runs))
    driver.send_signal(signal.SIGTERM)
    assert "stopped by SIGTERM: 2 runs have saved, 0 had not begun" in finished(driver, 143)
    reached = [steps_of(run) for run in runs]
    for run, steps in zip(runs, reached, strict=True):
        saved = max((run / "checkpoints").glob("step_*"))
        assert int(saved.name.removeprefix("step_")) == steps, "the step of the signal, not an earlier one"
    listed = finished(started(*wanted, "--dry-run", ray=False))
    assert listed.count("interrupted, to go on from step_") == 2
    time.sleep(2)
    assert [steps_of(run) for run in runs] == reached, "nothing trains on"


@with_ray
@pytest.mark.parametrize("whole", [True, False], ids=["node", "raylet"])
def test_a_run_whose_node_dies_goes_on_elsewhere(tmp_path: Path, nodes: Nodes, started: Any, *, whole: bool) -> None:
    """From its last checkpoint; from the very step if its process could still save, as it can without the raylet."""
    there, here = tmp_path / "there", tmp_path / "here"
    steps = ["train.steps=400", "train.checkpoint_every=50"]
    wanted = ["compare", *TINY, *steps, "--backbones", "nano", "--rounds", "0", "--resamples", "10", "--output"]
    driver = started(*wanted, str(there), ray=True)
    run, log = there / "runs/nano-seed0", there / "logs/nano-seed0.txt"
    wait_for(lambda: steps_of(run) > 120)
    (first,) = nodes_of(log)
    nodes.kill(first, whole=whole)
    said = finished(driver)
    assert "[1/1] nano-seed0: its node was lost; the run goes on in another place" in said
    assert len(set(nodes_of(log))) == len(nodes_of(log)) == 2
    _ = finished(started(*wanted, str(here), ray=False))
    assert losses(run) == losses(here / "runs/nano-seed0")
    assert [line["step"] for line in losses(run) if "loss" in line] == list(range(1, 401)), "each step once"
    stopped, resumed = (re.findall(words, log.read_text()) for words in (STOPPED, RESUMED))
    assert stopped in ([], resumed) if whole else stopped == resumed
    assert 100 <= int(resumed[0]) < 400


def checkpoint_in(folder: Path) -> Path:
    """A model with random weights, which finds something everywhere."""
    config = load_config(NANO)
    _ = torch.manual_seed(0)
    names, ids = ("cat", "dog"), (5, 17)
    model = build_model(config.model, len(names))
    metadata = model_metadata(config, names, ids, model.normalization)
    return save_checkpoint(folder / "run", step=1, weights=model.state_dict(), metadata=metadata, state={})


@with_ray
def test_parts_on_two_nodes_are_what_one_process_predicts(tmp_path: Path, started: Any) -> None:
    checkpoint = checkpoint_in(tmp_path)
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for number in range(5):
        Image.fromarray(rng.integers(0, 256, (40 + number, 64, 3), dtype=np.uint8)).save(photos / f"{number}.png")
    _ = (photos / "broken.png").write_bytes(b"no image")
    wanted = ["predict", str(checkpoint), str(photos), "eval.batch_size=1", "train.device=cpu", "--score", "0.2"]
    wanted += ["--csv", "--txt", "--crops", "--output"]
    there, here = tmp_path / "there", tmp_path / "here"
    said = finished(started(*wanted, str(there), "--parts", "2", ray=True), 2).splitlines()
    plain = finished(started(*wanted, str(here), ray=False), 2).splitlines()
    files = sorted(path.relative_to(here) for path in here.rglob("*") if path.is_file())
    assert len(files) > 15
    assert sorted(path.relative_to(there) for path in there.rglob("*") if path.is_file()) == files
    assert [name for name in files if (there / name).read_bytes() != (here / name).read_bytes()] == []
    assert sorted(path.name for path in tmp_path.glob(".*part*")) == [], "nothing is left of the parts"
    speed = [line for line in plain if line.startswith("images: 5, ")]
    assert [line.rpartition(",")[0] for line in said if line.startswith("images: 5, ")] == [
        line.rpartition(",")[0] for line in speed
    ]
    assert said[0] == plain[0]
    assert any(line.startswith("skipped: ") and "broken.png" in line for line in said)


@with_ray
def test_a_signal_ends_a_prediction_on_the_nodes_with_what_was_predicted(tmp_path: Path, started: Any) -> None:
    checkpoint, photos, output = checkpoint_in(tmp_path), tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for number in range(800):
        Image.new("RGB", (64, 64), (number % 256, 0, 0)).save(photos / f"{number}.png")
    driver = started("predict", str(checkpoint), str(photos), "train.device=cpu", "--output", str(output), ray=True)
    parts = [tmp_path / f".out.part-{number}" for number in range(2)]
    wait_for(lambda: all(len(list(part.glob("*.jpg"))) > 3 for part in parts))
    driver.send_signal(signal.SIGTERM)
    assert "stopped by SIGTERM" in finished(driver, 143)
    assert not output.exists()
    for part in parts:
        images = json.loads((part / "images.json").read_text())["images"]
        assert 0 < len(images) == len(list(part.glob("*.jpg"))) < 400, "what was predicted is whole, and no more"
