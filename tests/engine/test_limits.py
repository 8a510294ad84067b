"""What a training does at the limits of its machine: memory, shared memory, open files, the disk."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_divergence import poison_batches, with_pixel

from resdet.config import Config, load_config
from resdet.data.batches.loader import open_split, training_batches
from resdet.engine.distributed import World
from resdet.engine.run_folder import RunFiles
from resdet.engine.train import train
from resdet.errors import UserError

ROOT = Path(__file__).parents[2]


def trained_under(limit: list[str], arguments: list[str], run: Path) -> subprocess.CompletedProcess[str]:
    """A training in a shell that first runs `limit`."""
    script = [*limit, 'exec "$0" "$@"']
    return subprocess.run(
        [*(["unshare", "-rm"] if "mount" in limit[0] else []), "bash", "-ec", "\n".join(script), sys.executable,
         str(ROOT / "tools/train.py"), *arguments, "data.workers=2", "--output", str(run)],
        capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},  # torch warns where there are fewer cores than workers
    )  # fmt: skip


def test_a_limit_of_open_files_that_is_too_low_is_named(tmp_path: Path, nano_arguments: list[str]):
    done = trained_under(["ulimit -n 32"], nano_arguments, tmp_path / "run")
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert "the limit of open files is too low; raise it (ulimit -n 1024), or set data.workers=0" in line


def test_shared_memory_that_is_too_small_is_named(tmp_path: Path, nano_arguments: list[str]):
    small = "mount -t tmpfs -o size=64k tmpfs /dev/shm"
    if subprocess.run(["unshare", "-rm", "bash", "-ec", small], check=False).returncode:
        pytest.skip("this machine does not let a test mount a file system")
    done = trained_under([small], nano_arguments, tmp_path / "run")
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert "perhaps because shared memory is full; give more memory or shared memory (/dev/shm)" in line


def test_frozen_workers_do_not_keep_a_signal_from_ending_the_run(tmp_path: Path, nano_arguments: list[str]):
    run = tmp_path / "run"
    process = subprocess.Popen(
        [*(sys.executable, str(ROOT / "tools/train.py"), *nano_arguments, "train.steps=100000", "data.workers=2"),
         *("--output", str(run))],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    while not (run / "checkpoints").exists():
        time.sleep(0.05)
        assert process.poll() is None, process.communicate()
    for worker in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        os.kill(int(worker), signal.SIGSTOP)
    process.terminate()
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 143
    (line,) = errors.splitlines()
    assert "stopped by SIGTERM at step" in line


def many_records(folder: Path) -> list[str]:
    """Overrides for a data set of 1,000 images with 200 objects each; all images are one file."""
    Image.new("RGB", (16, 16)).save(folder / "a.png")
    images = [{"id": i, "file_name": "a.png", "height": 16, "width": 16} for i in range(1, 1001)]
    objects = [
        {"id": i, "image_id": i % 1000 + 1, "category_id": 1, "bbox": [i % 8, i % 7, 5, 5], "area": 25, "iscrowd": 0}
        for i in range(1, 200_001)
    ]
    content = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "cat"}]}
    _ = (folder / "a.json").write_text(json.dumps(content))
    return [f"data.train.annotations={folder / 'a.json'}", f"data.train.images={folder}"]


def children() -> set[int]:
    """The children of this process."""
    process = os.getpid()
    return {int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()}


def shared_memory_of(processes: list[int]) -> int:
    """Their proportional shares of the memory (Pss), in kB."""
    lines = [line for process in processes for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def test_the_memory_of_workers_stays_flat_over_epochs_of_many_records(tmp_path: Path):
    overrides = [*many_records(tmp_path), "train.batch_size=50", "data.workers=2", "data.augment.short_side=[16]"]
    config = load_config(ROOT / "configs/nano.yaml", overrides=overrides)
    others = children()
    batches = training_batches(open_split(config.data, "train"), config, start_step=0, rank=0, world_size=1)
    _ = list(islice(batches, 5))
    measured = [os.getpid(), *(children() - others)]
    assert len(measured) == 3
    before = shared_memory_of(measured)
    for _ in range(2):
        _ = list(islice(batches, 20))
    assert shared_memory_of(measured) < before * 1.02**2


def test_a_full_disk_does_not_hide_a_loss_that_is_not_finite(
    tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    poison_batches(monkeypatch, 4, with_pixel(float("nan")))
    monkeypatch.setattr(RunFiles, "write_bad_step", full)
    with pytest.raises(UserError, match=r"step 4: .* is nan; .*; it came from the images \(image ids"):
        _ = train(nano, tmp_path / "run")
    log = (tmp_path / "run/log.txt").read_text()
    assert "bad_step.json: cannot be written (No space left on device)" in log
    assert not list((tmp_path / "run").glob(".*.tmp"))


def test_an_image_that_another_process_left_out_is_told_at_the_next_save(
    tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch
):
    real = World.gather

    def gather(self: World, value: Any) -> list[Any]:
        return [value, {"9.png: is truncated"}] if isinstance(value, set) else real(self, value)

    monkeypatch.setattr(World, "gather", gather)
    _ = train(nano, tmp_path / "run")
    assert (tmp_path / "run/log.txt").read_text().count("warning: left out: 9.png: is truncated") == 1
    assert json.loads((tmp_path / "run/data_report.json").read_text())["unreadable"] == ["9.png: is truncated"]


@pytest.mark.parametrize("keep", [1, 2])
def test_a_single_checkpoint_is_a_warning(tmp_path: Path, nano: Config, keep: int):
    nano.train.steps, nano.train.keep_checkpoints = 1, keep
    _ = train(nano, tmp_path / "run")
    warned = "if the newest checkpoint is damaged, there is no other" in (tmp_path / "run/log.txt").read_text()
    assert warned is (keep == 1)
