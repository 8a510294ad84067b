"""The lines of docs/scale.md for several machines, on two hosts with a process each."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import hosts
import pytest
from hosts import Host
from test_distributed import check_metrics

from resdet.config import load_config
from resdet.engine.checkpoint import checkpoints
from resdet.engine.train import train

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture
def two() -> Iterator[tuple[Host, Host]]:
    if not hosts.are_possible():
        pytest.skip("namespaces need root, ip and unshare")
    with hosts.two_hosts() as pair:
        yield pair


def documented(host: Host, output: Path, *arguments: str) -> list[str]:
    """The line of the page, with one process a machine in place of eight, and another config and output."""
    text = (ROOT / "docs/scale.md").read_text().partition("## Several machines")[2]
    line = re.search(r"^    torchrun .*?(?<!\\)\n", text, re.M | re.S)
    assert line is not None
    words = shlex.split(line[0].replace("\\\n", " "))
    replaced = {
        "torchrun": str(Path(sys.executable).parent / "torchrun"),
        "--nproc-per-node=8": "--nproc-per-node=1",
        "--rdzv-endpoint=HOST:29500": f"--rdzv-endpoint={host.name}:29500",
        "configs/faster_rcnn_r50_fpn_1x_coco.yaml": "configs/nano.yaml",
        "/shared/runs/r50": str(output),
    }
    assert replaced.keys() <= set(words)
    return [replaced.get(word, word) for word in words] + list(arguments)


def started(pair: tuple[Host, Host], folder: Path, *arguments: str) -> list[subprocess.Popen[bytes]]:
    command = documented(pair[0], folder / "two", *arguments)
    return [host.start(command, folder / f"{host.name[-1]}.txt", ROOT) for host in pair]


def said(folder: Path) -> str:
    return "".join((folder / f"{letter}.txt").read_text() for letter in "ab")


def test_two_hosts_train_as_one_process_up_to_rounding(
    tmp_path: Path, two: tuple[Host, Host], nano_arguments: list[str]
) -> None:
    config, *overrides = nano_arguments
    processes = started(two, tmp_path, *overrides)
    assert [process.wait() for process in processes] == [0, 0], said(tmp_path)
    assert "2 processes" in (tmp_path / "a.txt").read_text() + (tmp_path / "b.txt").read_text()
    _ = train(load_config(config, overrides=overrides), tmp_path / "one")
    check_metrics(tmp_path)


@pytest.mark.parametrize("killed", [0, 1], ids=["the host of the rendezvous", "the other host"])
def test_the_death_of_a_host_ends_the_other_and_the_run_goes_on_after_it(
    tmp_path: Path, two: tuple[Host, Host], nano_arguments: list[str], killed: int
) -> None:
    overrides = [*nano_arguments[1:], "train.checkpoint_every=1"]
    processes = started(two, tmp_path, *overrides, "train.steps=100000")
    while len(checkpoints(tmp_path / "two")) < 2 and all(each.poll() is None for each in processes):
        time.sleep(0.5)
    assert [process.poll() for process in processes] == [None, None], said(tmp_path)
    processes[killed].kill()  # all processes of the host die, and the kernel closes their connections
    assert all(process.wait() != 0 for process in processes)
    # Where torchrun's meeting point died, torchrun may end its process before this has said so.
    ends = ["a process on another machine has ended, so all stop", "RendezvousConnectionError"][: 2 - killed]
    assert any(end in said(tmp_path) for end in ends), said(tmp_path)
    saved = checkpoints(tmp_path / "two")[-1]
    step = int(saved.name.removeprefix("step_"))
    processes = started(two, tmp_path, *overrides, f"train.steps={step + 20}", "--resume")
    assert [process.wait() for process in processes] == [0, 0], said(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "two/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == step + 20
