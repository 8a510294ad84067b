"""What a resume and the best checkpoint are made of."""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from exact_resume import weights_hash
from torch import nn

from resdet.config import Config
from resdet.engine import checkpoint
from resdet.engine.checkpoint import checkpoints, newest_checkpoint, read_state
from resdet.engine.run_folder import RunFiles
from resdet.engine.train import train

ROOT = Path(__file__).parents[2]


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
