"""What a training does when its surroundings fail: each fault is provoked, and the verdict is checked."""

import errno
import fcntl
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from interruption import terminate_in_evaluation
from test_train import weights_hash
from torch import nn

from resdet.appended_file import Appended
from resdet.cli.main import main
from resdet.config import Config
from resdet.engine import checkpoint, distributed
from resdet.engine.checkpoint import checkpoints, newest_checkpoint, read_state
from resdet.engine.distributed import World, join_world
from resdet.engine.peers import Peer
from resdet.engine.run_folder import RunFiles
from resdet.engine.signals import Stopped
from resdet.engine.task.detection import check_categories
from resdet.engine.train import train
from resdet.errors import UserError
from resdet.folder_lock import FolderLock

ROOT = Path(__file__).parents[2]


def children(process: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


# Workers


def test_a_killed_worker_ends_the_run_in_one_line_and_no_step_is_lost(
    tmp_path: Path, nano_arguments: list[str], read_metrics: Any
):
    run = tmp_path / "run"
    endless = ["train.steps=100000", "train.checkpoint_every=100000", "data.workers=2", "--output", str(run)]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tools/train.py"), *nano_arguments, *endless],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (run / "metrics.jsonl").exists() or len((run / "metrics.jsonl").read_text().splitlines()) < 3:
        time.sleep(0.05)
        assert process.poll() is None, process.communicate()
    os.kill(children(process.pid)[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 2
    step = read_metrics(run)[-1]["step"]
    (line,) = errors.strip().splitlines()
    assert "was ended by SIGKILL, perhaps because memory ran out" in line
    assert line.endswith(f"step {step} is saved, go on from it with --resume")
    assert checkpoints(run)[-1].name == f"step_{step:08d}"


def test_an_image_that_breaks_during_a_run_loses_no_step(tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch):
    from resdet.data.augment import samples

    real, calls = samples.read_image, iter(range(1000))

    def breaks(*arguments: Any, **options: Any) -> Any:
        if next(calls) >= 8:  # two images a step: the first of step 5
            raise UserError("7.png: is truncated")
        return real(*arguments, **options)

    monkeypatch.setattr(samples, "read_image", breaks)
    with pytest.raises(UserError, match=r"^7\.png: is truncated; step 4 is saved, go on from it with --resume$"):
        _ = train(nano, tmp_path / "run")
    assert checkpoints(tmp_path / "run")[-1].name == "step_00000004"


# One training a folder


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_training_into_a_folder_is_refused(tmp_path: Path, nano: Config, *, resume: bool):
    with FolderLock(tmp_path / "run", "training") as lock:
        lock.take()
        with pytest.raises(UserError, match=r"run: another training is at work here; wait for it, stop it, or choose"):
            _ = train(nano, tmp_path / "run", resume=resume)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_a_data_worker_that_outlives_a_killed_training_does_not_keep_its_lock(tmp_path: Path):
    with FolderLock(tmp_path, "training") as lock:
        lock.take()
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        worker.start()
        with FolderLock(tmp_path, "training") as other, pytest.raises(UserError, match="another training is at work"):
            other.take()  # the worker has let go of it, and the training has not
    try:
        with FolderLock(tmp_path, "training") as next_one:
            next_one.take()
    finally:
        worker.kill()
        worker.join()


def test_the_lock_of_a_run_is_held_while_it_trains_and_is_free_afterwards(
    tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch
):
    seen = []

    def look(*_: Any) -> None:
        with (tmp_path / "run/.lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                seen.append("free")
            except BlockingIOError:
                seen.append("locked")

    monkeypatch.setattr("resdet.engine.train.start.announce", lambda *_, **__: look())
    _ = train(nano, tmp_path / "run")
    look()
    assert seen == ["locked", "free"]


@pytest.mark.parametrize("name", ["checkpoints/thesis.txt", "config.yaml"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_foreign_folder_is_no_run(tmp_path: Path, nano: Config, name: str, *, resume: bool):
    file = tmp_path / "run" / name
    file.parent.mkdir(parents=True)
    _ = file.write_text("mine")
    with pytest.raises(UserError, match=r"is not empty and not a run of resdet"):
        _ = train(nano, tmp_path / "run", resume=resume)
    assert file.read_text() == "mine"


@pytest.mark.parametrize("written", range(5))
def test_every_beginning_of_a_run_can_be_resumed(tmp_path: Path, nano: Config, written: int):
    whole, run = tmp_path / "whole", tmp_path / "run"
    nano.train.steps = 1
    _ = train(nano, whole)
    run.mkdir()
    _ = (whole / "config.yaml").rename(whole / ".config.yaml.0123abcd.tmp")
    beginning = [".lock", ".config.yaml.0123abcd.tmp", "config.yaml", "data_report.json", "log.txt"][:written]
    for name in beginning:
        source = ".config.yaml.0123abcd.tmp" if name == "config.yaml" else name
        _ = shutil.copy(whole / source, run / name)
    _ = train(nano, run, resume=True)
    assert weights_hash(run, 1) == weights_hash(whole, 1)


# Signals where there is nothing to save


@pytest.mark.parametrize(
    "place",
    [
        "resdet.engine.task.detection.open_split",
        "resdet.workflows.train.draw_run",
        "resdet.workflows.train.write_report",
    ],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_outside_of_the_steps_is_one_line_and_143(
    tmp_path: Path,
    nano_arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: str,
    number: signal.Signals,
):
    monkeypatch.setattr(place, lambda *_, **__: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    assert main(["train", *nano_arguments, "train.steps=1", "--output", str(tmp_path / "run")]) == 143
    assert capsys.readouterr().err.strip() == f"stopped by {number.name}"
    assert signal.getsignal(number) == before


def test_the_figures_of_a_part_of_the_images_are_never_recorded(
    tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch, read_metrics: Any
):
    nano.eval.every = 2
    terminate_in_evaluation(monkeypatch)
    with pytest.raises(Stopped):
        _ = train(nano, tmp_path / "run")
    assert not [line for line in read_metrics(tmp_path / "run") if "bbox/AP" in line]
    assert not (tmp_path / "run/eval.json").exists()
    assert not (tmp_path / "run/best").exists()


# The disk


def test_a_signal_ends_an_evaluation_of_a_saved_model_without_figures(
    tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    _ = train(nano, tmp_path / "run")
    terminate_in_evaluation(monkeypatch)
    assert main(["evaluate", str(tmp_path / "run"), "--output", str(tmp_path / "again")]) == 143
    assert capsys.readouterr().err.strip().splitlines()[-1] == "stopped by SIGTERM"
    assert not (tmp_path / "again").exists()


def test_a_line_that_the_disk_did_not_take_follows_without_loss_or_doubling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real, room = os.write, [3]  # bytes

    def write(descriptor: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = real(descriptor, data[: room[0]])
        room[0] -= done
        return done

    monkeypatch.setattr(os, "write", write)
    file = Appended(tmp_path / "metrics.jsonl")
    assert file.add("first\n") == "No space left on device"
    assert file.add("second\n") == "No space left on device"
    room[0] = 100
    assert file.add("third\n") is None
    file.close()
    assert file.path.read_text() == "first\nsecond\nthird\n"


def test_figures_that_cannot_be_written_are_one_line_and_a_resume_writes_them(
    tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch
):
    run = tmp_path / "run"

    def full(*_: Any, **__: Any) -> None:
        raise UserError(f"{run}: cannot be written (No space left on device); choose another --output")

    monkeypatch.setattr(RunFiles, "write_evaluation", full)
    with pytest.raises(UserError, match=r"No space left on device.*step 6 is saved, go on from it with --resume"):
        _ = train(nano, run)
    monkeypatch.undo()
    figures = train(nano, run, resume=True)
    written = json.loads((run / "eval.json").read_text())
    assert written["step"] == 6
    assert {name: written[name] for name in figures} == figures


ON_A_SMALL_DISK = """
set -e
mount -t tmpfs -o size={size}k tmpfs "$1"
set +e
"$2" "$3" "${{@:4}}" train.steps=6 train.checkpoint_every=1 --output "$1/run" > "$1.out" 2> "$1.err"
echo $? > "$1.code"
find "$1" -name '*.tmp' > "$1.left"
mount -o remount,size=100m "$1"
"$2" "$3" "${{@:4}}" train.steps=6 train.checkpoint_every=1 --output "$1/run" --resume >> "$1.out" 2>> "$1.err2"
echo $? >> "$1.code"
cp -r "$1/run" "$1.copy"
"""


@pytest.mark.slow
@pytest.mark.parametrize("size", [4, 40, 300, 700])
def test_a_full_disk_is_one_line_and_with_room_the_run_ends_as_if_nothing_had_happened(
    tmp_path: Path, nano: Config, nano_arguments: list[str], size: int
):
    if subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("this machine does not let a test mount a file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["unshare", "-rm", "bash", "-c", ON_A_SMALL_DISK.format(size=size), "bash", str(disk), sys.executable]
    done = subprocess.run(
        [*command, str(ROOT / "tools/train.py"), *nano_arguments],
        timeout=300,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    errors = Path(f"{disk}.err").read_text().strip()
    assert Path(f"{disk}.code").read_text().split() == ["2", "0"], errors + Path(f"{disk}.err2").read_text()
    assert "No space left on device" in errors
    assert "Traceback" not in errors
    assert len(errors.splitlines()) == 1, errors
    assert not Path(f"{disk}.left").read_text()
    nano.train.steps, nano.train.checkpoint_every = 6, 1
    _ = train(nano, tmp_path / "clean")
    assert weights_hash(Path(f"{disk}.copy"), 6) == weights_hash(tmp_path / "clean", 6)


# Files that are handed over


def test_a_pipe_or_a_device_is_refused_at_once(tmp_path: Path):
    from resdet.coco.annotation_file import read_annotation_file
    from resdet.coco.json_file import read_json
    from resdet.files import read_regular

    pipe = tmp_path / "manifest.json"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(UserError, match="is no regular file"):
            _ = read_annotation_file(path)
        with pytest.raises(UserError, match="is no regular file"):
            _ = read_json(path, dict, expected="an object")
    assert checkpoint.damage(tmp_path) == "manifest.json is not readable (UserError)"
    _ = (tmp_path / "long").write_bytes(b"12345")
    assert read_regular(tmp_path / "long", largest=5) == b"12345"
    with pytest.raises(UserError, match="has 5 bytes, and such a file has at most 4"):
        _ = read_regular(tmp_path / "long", largest=4)


def test_files_of_a_run_that_are_not_text_do_not_end_in_a_traceback(tmp_path: Path):
    files = RunFiles(tmp_path)
    _ = (tmp_path / "best").write_bytes(b"\xff\xfe")
    (tmp_path / "checkpoints/step_00000001").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no best checkpoint: it names .* which is not there"):
        _ = checkpoint.find_model_file(tmp_path / "best")
    (tmp_path / "best").unlink()
    (tmp_path / "best").mkdir()
    with pytest.raises(UserError, match=r"best: cannot be read \(Is a directory\); remove it"):
        _ = checkpoint.find_best_model_file(tmp_path)
    _ = files.metrics.write_bytes(b'{"step": 1}\n\xff\xff\n{"step": 2}\n')
    files.forget_after(1)
    assert files.metrics.read_bytes() == b'{"step": 1}\n'


# Small changes of the code that no other test noticed


def test_a_worse_evaluation_does_not_replace_the_best(tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch):
    import resdet.engine.task.detection as module

    real, values = module.evaluate, iter([0.5, 0.2, 0.4])
    monkeypatch.setattr(module, "evaluate", lambda *a, **o: real(*a, **o) | {"bbox/AP": next(values)})
    nano.eval.every, nano.train.keep_checkpoints = 2, 1
    _ = train(nano, tmp_path / "run")
    assert RunFiles(tmp_path / "run").best() == "step_00000002"
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step_00000002", "step_00000006"]


def test_a_resume_goes_on_with_the_same_random_numbers(tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch):
    from resdet.models.build.detector import build_model

    def with_dropout(*arguments: Any) -> nn.Module:
        model = build_model(*arguments)
        assert model.roi_heads is not None
        setattr(model.roi_heads.box_head, "dropout", 0.5)  # noqa: B010  # a module declares no such attribute
        return model

    monkeypatch.setattr("resdet.engine.task.detection.build_model", with_dropout)
    nano.train.keep_checkpoints = 5
    _ = train(nano, tmp_path / "whole")
    _ = shutil.copytree(tmp_path / "whole", tmp_path / "run")
    shutil.rmtree(checkpoints(tmp_path / "run")[-1])
    _ = torch.manual_seed(99)
    _ = train(nano, tmp_path / "run", resume=True)
    assert weights_hash(tmp_path / "run", 6) == weights_hash(tmp_path / "whole", 6)
    monkeypatch.undo()
    _ = train(nano, tmp_path / "plain")
    assert weights_hash(tmp_path / "plain", 6) != weights_hash(tmp_path / "whole", 6), "the dropout drew something"


def test_a_resume_names_what_is_different_here(tmp_path: Path, nano: Config):
    nano.train.steps = 3
    _ = train(nano, tmp_path / "run")
    path = checkpoints(tmp_path / "run")[-1]
    state = read_state(path) | {"world_size": 4, "torch": "1.0"}
    file = checkpoint.read_model_file(path / checkpoint.MODEL)
    names = checkpoint.model_metadata(file.config, file.class_names, file.category_ids, ([0.0] * 3, [1.0] * 3))
    _ = checkpoint.save_checkpoint(tmp_path / "run", step=3, weights=file.weights, metadata=names, state=state)
    nano.train.steps = 4
    _ = train(nano, tmp_path / "run", resume=True)
    log = (tmp_path / "run/log.txt").read_text()
    assert "the run had world_size=4 and goes on with 1" in log
    assert f"the run had torch=1.0 and goes on with {torch.__version__}" in log


def test_a_checkpoint_gets_its_name_when_its_manifest_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The only replay of a power loss that needs no special file system: what is synced before the name exists."""
    events: list[str] = []
    real_write, real_sync, real_rename = checkpoint.write_synced, checkpoint.sync_folder, Path.rename

    def write(path: Path, data: bytes) -> None:
        events.append(f"write {path.name}")
        real_write(path, data)

    def sync(folder: Path) -> None:
        events.append(f"sync {folder.relative_to(tmp_path)}")
        real_sync(folder)

    def rename(path: Path, target: Path) -> Path:
        events.append(f"rename {path.name} to {target.name}")
        return real_rename(path, target)

    monkeypatch.setattr(checkpoint, "write_synced", write)
    monkeypatch.setattr(checkpoint, "sync_folder", sync)
    monkeypatch.setattr(Path, "rename", rename)
    _ = checkpoint.save_checkpoint(tmp_path, step=1, weights={"w": torch.ones(1)}, metadata={}, state={"step": 1})
    temporary = "checkpoints/.step_00000001.tmp"
    assert events[1:] == [
        "write model.safetensors",
        "write state.pt",
        "write manifest.json",
        f"sync {temporary}",
        "rename .step_00000001.tmp to step_00000001",
        "sync checkpoints",
    ]


def test_a_file_is_synced_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from resdet import files

    events: list[str] = []
    real = Path.replace
    monkeypatch.setattr(files, "_sync", lambda path: events.append(f"sync {path.suffix}"))
    monkeypatch.setattr(files, "sync_folder", lambda path: events.append("sync folder"))
    monkeypatch.setattr(Path, "replace", lambda path, target: (events.append("rename"), real(path, target))[1])
    files.replace_file(tmp_path / "eval.json", b"{}")
    assert events == ["sync .tmp", "rename", "sync folder"]


@pytest.mark.parametrize("fails", [False, True])
def test_the_group_is_torn_down_only_after_a_normal_end(monkeypatch: pytest.MonkeyPatch, *, fails: bool):
    destroyed = []
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed.dist, "init_process_group", lambda *_: None)
    monkeypatch.setattr(distributed.dist, "destroy_process_group", lambda: destroyed.append(True))
    monkeypatch.setattr(World, "gather", lambda self, value: [value, value])
    monkeypatch.setattr(World, "any", lambda self, flag: flag)
    try:
        with join_world("cpu"):
            if fails:
                raise ValueError("a bug")
    except ValueError:
        pass
    assert bool(destroyed) is not fails


def test_a_process_that_was_killed_counts_as_dead_before_its_parent_knows():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    peer = Peer(Peer.here().machine, process.pid)
    assert not peer.is_dead()
    process.kill()
    deadline = time.monotonic() + 60
    while not peer.is_dead():  # a zombie
        assert time.monotonic() < deadline
    _ = process.wait()
    assert peer.is_dead()


def test_train_and_val_must_list_the_same_categories(tmp_path: Path, nano: Config):
    from dataclasses import replace

    from resdet.data.batches.loader import open_split

    train_set = open_split(nano.data, "train")
    check_categories(train_set, train_set)
    other = replace(train_set, class_names=(*train_set.class_names[:-1], "zebra"))
    with pytest.raises(UserError, match=r"its categories differ .*train and val need the same list"):
        check_categories(train_set, other)


def test_strict_makes_an_error_of_what_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from PIL import Image

    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    boxes = [[1, 1, 10, 10], [5, 5, 0, 5]]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 30, "width": 40}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for i, box in enumerate(boxes, start=1)
        ],
    }
    _ = (tmp_path / "a.json").write_text(json.dumps(content))
    command = ["check-data", str(tmp_path / "a.json"), str(tmp_path)]
    assert main(command) == 0
    _ = capsys.readouterr()
    assert main([*command, "--strict"]) == 2
    assert "mend the annotations, or leave out --strict" in capsys.readouterr().err


def test_a_run_that_was_saved_is_whole_after_its_process_is_killed(tmp_path: Path, nano_arguments: list[str]):
    """Killed at any moment, the next process resumes from a sound checkpoint, and ends with the same bits."""
    run = tmp_path / "run"
    endless = ["train.checkpoint_every=1", "train.steps=100000", "--output", str(run)]
    command = [sys.executable, str(ROOT / "tools/train.py"), *nano_arguments, *endless]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not (run / "checkpoints").exists():
        time.sleep(0.05)
    time.sleep(0.5)
    process.kill()
    _ = process.wait()
    path, skipped = newest_checkpoint(run)
    assert not skipped
    assert read_state(path)["step"] == int(path.name.removeprefix("step_"))
