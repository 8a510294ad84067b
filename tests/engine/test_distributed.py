"""Two processes over gloo do what one does."""

import json
import operator
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forked import Command
from safetensors import safe_open
from torch.testing import assert_close

from resdet.config import load_config
from resdet.data.sets.shapes import shapes_folder
from resdet.engine.checkpoint import newest_checkpoint
from resdet.engine.distributed import World, choose_device, join_world
from resdet.engine.evaluate_checkpoint import evaluate_checkpoint
from resdet.engine.peers import Peer
from resdet.engine.train import train
from resdet.errors import UserError

ROOT = Path(__file__).parents[2]


def test_alone_every_agreement_is_with_oneself():
    with join_world("cpu") as world:
        assert world == World()
        assert world.leads
        assert world.any(True)
        assert not world.any(False)
        assert world.mean([1.0, 2.0]) == [1.0, 2.0]
        assert world.gather("a") == ["a"]
        assert world.from_lead("a") == "a"


def test_cuda_without_a_gpu_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_device("auto", World()).type == "cpu"
    with pytest.raises(UserError, match=r"train.device=cuda, but torch sees no CUDA device"):
        _ = choose_device("cuda", World())


def test_a_gpu_without_triton_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert choose_device("auto", World()).type == "cuda"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"NMS on a GPU needs triton, which this Python lacks"):
        _ = choose_device("auto", World())


def start_processes(size: int, arguments: list[str], *, backend: str | None = None) -> list[Command]:
    """`resdet train` with the environment that torchrun gives each process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    return [
        Command(["train", *arguments], {"RANK": str(rank), "LOCAL_RANK": str(rank), **shared}, backend=backend)
        for rank in range(size)
    ]


def in_processes(
    size: int, arguments: list[str], *, backend: str | None = None
) -> list[subprocess.CompletedProcess[str]]:
    """What the processes said in the end; they have as long as pytest gives the test."""
    processes = start_processes(size, arguments, backend=backend)
    try:
        outputs = [process.communicate() for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [
        subprocess.CompletedProcess(process.args, process.wait(), *output)
        for process, output in zip(processes, outputs, strict=True)
    ]


def mostly_empty(folder: Path) -> list[str]:
    """Overrides for training data of which two images have objects: most processes get only empty images."""
    source = shapes_folder(train_images=8, val_images=5, size=64, max_objects=4, seed=0)
    truth = json.loads((source / "annotations/instances_train.json").read_text())
    kept = {image["id"] for image in truth["images"][:2]}
    truth["annotations"] = [row for row in truth["annotations"] if row["image_id"] in kept]
    _ = (folder / "truth.json").write_text(json.dumps(truth))
    return [f"data.train.annotations={folder / 'truth.json'}", f"data.train.images={source / 'train'}"]


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_processes_agree_with_one_up_to_rounding(tmp_path: Path, nano_arguments: list[str], *, compiled: bool):
    """Also where a process has only empty images, and five evaluation images in batches of two are no multiple of
    the processes: none is lost or counted twice. And with train.compile,
    without the minutes in which code is generated."""
    config, *overrides = [*nano_arguments, "data.shapes.val_images=5", "train.batch_size=4", *mostly_empty(tmp_path)]
    two = [*overrides, f"train.compile={str(compiled).lower()}", "--output", str(tmp_path / "two")]
    done = in_processes(2, [config, *two], backend="eager" if compiled else None)
    assert [process.returncode for process in done] == [0, 0], done[0].stderr + done[1].stderr
    assert "2 processes" in done[0].stdout
    assert all("FutureWarning" not in process.stderr for process in done)
    assert done[1].stdout == "", "only the leading process speaks"
    _ = train(load_config(config, overrides=overrides), tmp_path / "one")

    check_metrics(tmp_path)
    files = [tmp_path / run / "checkpoints/step_00000006/model.safetensors" for run in ("one", "two")]
    with safe_open(files[0], "pt") as one, safe_open(files[1], "pt") as two:
        for name in one.keys():  # noqa: SIM118  # not a dict
            assert_close(two.get_tensor(name), one.get_tensor(name), rtol=1e-3, atol=1e-5)


def check_metrics(folder: Path) -> None:
    """Those of the run `two` are those of `one` up to rounding."""
    lines = [
        [json.loads(line) for line in (folder / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("one", "two")
    ]
    for one, two in zip(*lines, strict=True):
        for name in one.keys() - {"images_per_second", "data_wait"}:
            assert (one[name] is None and two[name] is None) or abs(one[name] - two[name]) < 1e-4, (one["step"], name)


def test_two_processes_classify_as_one_up_to_rounding(tmp_path: Path):
    """Ten images to evaluate in batches of four are no multiple of the processes."""
    config, *overrides = [
        str(ROOT / "configs/cifar/patches.yaml"),
        *("model.backbone={name: nano, norm: gn}", "data.patches={train_images: 16, val_images: 10, size: 64}"),
        *("train={steps: 6, batch_size: 4, log_every: 1, checkpoint_every: 3}", "eval={every: 3, train_images: 16}"),
    ]
    done = in_processes(2, [config, *overrides, "--output", str(tmp_path / "two")])
    assert [process.returncode for process in done] == [0, 0], done[0].stderr + done[1].stderr
    _ = train(load_config(config, overrides=overrides), tmp_path / "one")
    check_metrics(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "part", [["model.mask_head.channels=8"], ["model.backbone.norm=bn", "train.batch_size=4"]], ids=["masks", "bn"]
)
def test_detections_of_two_processes_score_as_from_one(tmp_path: Path, nano_arguments: list[str], part: list[str]):
    """Trained and evaluated by two, evaluated again by one: equal to the last bit, also with batch norms whose
    statistics each process computes from its own images.
    """
    overrides = [*part, "data.shapes.val_images=5", "train.steps=2", "model.box_head.score_threshold=0.0"]
    done = in_processes(2, [*nano_arguments, *overrides, "--output", str(tmp_path / "run")])
    assert [process.returncode for process in done] == [0, 0], done[0].stderr + done[1].stderr
    written = json.loads((tmp_path / "run/eval.json").read_text())
    alone = evaluate_checkpoint(tmp_path / "run", output=tmp_path / "alone").figures
    assert ("segm/AP" in alone) == ("mask" in part[0])
    assert {name: written[name] for name in alone} == alone
    key = operator.itemgetter("image_id", "score", "category_id")
    runs = [json.loads((tmp_path / name / "predictions.json").read_text()) for name in ("run", "alone")]
    assert sorted(runs[0], key=key) == sorted(runs[1], key=key)


def test_the_others_end_soon_when_a_process_dies(tmp_path: Path, nano_arguments: list[str]):
    arguments = [*nano_arguments, "train.steps=100000", "--output", str(tmp_path / "run")]
    processes = start_processes(2, arguments)
    while not (tmp_path / "run/checkpoints").exists():
        time.sleep(0.1)
        assert all(process.poll() is None for process in processes)
    processes[1].kill()
    start = time.monotonic()
    _, said = processes[0].communicate(timeout=300)
    assert processes[0].returncode == 2
    assert time.monotonic() - start < 30
    (line,) = [line for line in said.splitlines() if "Warning" not in line and not line.startswith("  ")]
    assert f"rank 1 (process {processes[1].pid}) has ended" in line
    _ = processes[1].communicate()
    _ = newest_checkpoint(tmp_path / "run")  # what was saved is whole


def children(process: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.slow
def test_no_process_goes_on_without_torchrun(tmp_path: Path, nano_arguments: list[str]):
    """They save and end, each by itself."""
    run, script = tmp_path / "run", str(ROOT / "tools/train.py")
    torchrun = subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script),
            *(*nano_arguments, "train.steps=100000", "train.checkpoint_every=20", "--output", str(run)),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (run / "checkpoints").exists():
        time.sleep(0.1)
        assert torchrun.poll() is None
    ranks = children(torchrun.pid)
    assert len(ranks) == 2
    torchrun.kill()
    _ = torchrun.wait()
    start = time.monotonic()
    while any(not Peer(Peer.here().machine, rank).is_dead() for rank in ranks):
        time.sleep(0.1)
        assert time.monotonic() - start < 30
    saved, _ = newest_checkpoint(run)
    assert read_metrics_steps(run)[-1] <= int(saved.name.removeprefix("step_"))


def read_metrics_steps(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
