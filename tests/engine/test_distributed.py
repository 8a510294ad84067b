"""Two processes over gloo do what one does."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open
from torch.testing import assert_close

from resdet.engine.distributed import World, choose_device, join_world
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
    with pytest.raises(UserError, match="train.device=cuda, but torch sees no CUDA device"):
        _ = choose_device("cuda", World())


def in_processes(size: int, arguments: list[str]) -> list[subprocess.CompletedProcess[str]]:
    """tools/train.py with the environment that torchrun gives each process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "tools/train.py"), *arguments],
            env=os.environ
            | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "OMP_NUM_THREADS": "1"}
            | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *output)
        for process, output in zip(processes, outputs, strict=True)
    ]


def test_two_processes_agree_with_one_up_to_rounding(tmp_path: Path, nano_arguments: list[str]):
    """Five evaluation images in batches of two are no multiple of the processes: none is lost or counted twice."""
    common = [*nano_arguments, "data.shapes.val_images=5", "train.batch_size=4"]
    done = in_processes(2, [*common, "--output", str(tmp_path / "two")])
    assert [process.returncode for process in done] == [0, 0], done[0].stderr + done[1].stderr
    assert "2 processes" in done[0].stdout
    assert done[1].stdout == "", "only the leading process speaks"
    assert in_processes(1, [*common, "--output", str(tmp_path / "one")])[0].returncode == 0

    lines = [
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("one", "two")
    ]
    for one, two in zip(*lines, strict=True):
        for name in one.keys() - {"images_per_second", "data_wait"}:
            assert (one[name] is None and two[name] is None) or abs(one[name] - two[name]) < 1e-4, (one["step"], name)
    files = [tmp_path / run / "checkpoints/step_00000006/model.safetensors" for run in ("one", "two")]
    with safe_open(files[0], "pt") as one, safe_open(files[1], "pt") as two:
        for name in one.keys():  # noqa: SIM118  # not a dict
            assert_close(two.get_tensor(name), one.get_tensor(name), rtol=1e-3, atol=1e-5)


def test_a_process_with_only_empty_images_does_not_hang(tmp_path: Path, nano_arguments: list[str]):
    """Each of the two processes trains on one image; in most batches one of them has nothing on it."""
    from resdet.data.shapes import shapes_folder

    folder = shapes_folder(train_images=8, val_images=4, size=64, max_objects=4, seed=0)
    truth = json.loads((folder / "annotations/instances_train.json").read_text())
    kept = truth["images"][0]["id"]
    truth["annotations"] = [row for row in truth["annotations"] if row["image_id"] == kept]
    annotations = tmp_path / "one_full.json"
    _ = annotations.write_text(json.dumps(truth))
    data = [f"data.train.annotations={annotations}", f"data.train.images={folder / 'train'}"]
    done = in_processes(2, [*nano_arguments, *data, "--output", str(tmp_path / "run")])
    assert [process.returncode for process in done] == [0, 0], done[0].stderr + done[1].stderr
