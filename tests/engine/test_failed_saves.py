"""A checkpoint that cannot be written is a warning, and an error where that happens again and again."""

from pathlib import Path
from typing import Any

import pytest

import resdet.engine.train.saving
from resdet.config import Config
from resdet.engine import checkpoint
from resdet.engine.checkpoint import checkpoints
from resdet.engine.train import train
from resdet.errors import UserError


def fail_to_save(monkeypatch: pytest.MonkeyPatch, at: set[int]) -> None:
    real = checkpoint.save_checkpoint

    def save_checkpoint(run: Path, *, step: int, **rest: Any) -> Path:
        if step in at:
            raise OSError(28, "No space left on device")
        return real(run, step=step, **rest)

    monkeypatch.setattr(resdet.engine.train.saving.checkpoint, "save_checkpoint", save_checkpoint)


def test_training_goes_on_when_a_save_fails(tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch):
    nano.train.checkpoint_every = 1
    fail_to_save(monkeypatch, {2, 3})
    _ = train(nano, tmp_path / "run")
    text = (tmp_path / "run/log.txt").read_text()
    assert "warning: step 3: checkpoint not saved: No space left on device; the newest is still step_00000001" in text
    assert checkpoints(tmp_path / "run")[-1].name == "step_00000006"


def test_saves_that_fail_again_and_again_are_an_error(tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch):
    nano.train.checkpoint_every = 1
    fail_to_save(monkeypatch, {2, 3, 4})
    with pytest.raises(UserError, match=r"step 4: checkpoint not saved: No space left.*make room"):
        _ = train(nano, tmp_path / "run")
    assert checkpoint.damage(checkpoint.checkpoint_path(tmp_path / "run", 1)) is None
