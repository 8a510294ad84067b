"""One training a folder, and only a folder that is a run."""

import fcntl
import multiprocessing
import shutil
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest
from exact_resume import weights_hash

from resdet.config import Config
from resdet.engine.train import train
from resdet.errors import UserError
from resdet.folder_lock import FolderLock


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_training_into_a_folder_is_refused(tmp_path: Path, nano: Config, *, resume: bool):
    with FolderLock(tmp_path / "run", "training") as lock:
        lock.take()
        with pytest.raises(UserError, match=r"run: another training is at work here; wait for it, stop it, or choose"):
            _ = train(nano, tmp_path / "run", resume=resume)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def _sleep(begun: Event) -> None:
    begun.set()
    time.sleep(600)


def test_a_data_worker_that_outlives_a_killed_training_does_not_keep_its_lock(tmp_path: Path):
    with FolderLock(tmp_path, "training") as lock:
        lock.take()
        context = multiprocessing.get_context("fork")
        begun = context.Event()
        worker = context.Process(target=_sleep, args=(begun,))
        worker.start()
        assert begun.wait(300)
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
