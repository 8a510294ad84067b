"""After a power loss at any moment, what a run said to be saved is there and sound."""

from pathlib import Path

import pytest
import torch

from power_loss import recorded, written
from resdet.engine.checkpoint import (
    checkpoints,
    damage,
    finish_leftovers,
    newest_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)
from resdet.engine.run_folder import RunFiles
from resdet.errors import UserError
from resdet.files import replace_file
from resdet.folder_lock import FolderLock


def save(run: Path, step: int) -> None:
    """With a single checkpoint kept, so that each save removes the one before."""
    weights = {"w": torch.full((3,), float(step))}
    path = save_checkpoint(run, step=step, weights=weights, metadata={}, state={"step": step})
    RunFiles(run).write_best(path)
    prune_checkpoints(run, step=step, keep=1)


def test_after_a_power_loss_at_any_moment_the_checkpoint_that_was_saved_last_is_sound(tmp_path: Path):
    root = tmp_path / "disk"
    root.mkdir()
    with recorded(root) as disk, FolderLock(root / "runs/a", "training") as lock:
        lock.take()
        for step in (1, 2, 2, 3):  # a step is saved again after an interrupted evaluation
            save(root / "runs/a", step)
            disk.promised = step
    assert len(disk.states) > 60
    empty = 0
    for number, (promised, state) in enumerate(disk.states):
        run = written(state, tmp_path / str(number)) / "runs/a"
        sound = [path for path in checkpoints(run) if damage(path) is None]
        if promised is None:
            empty += not sound
            continue
        finish_leftovers(run)  # as a resume does
        newest, _ = newest_checkpoint(run)
        assert int(newest.name.removeprefix("step_")) >= promised
        best = RunFiles(run).best()
        assert best is None or (run / "checkpoints" / best).is_dir() or best < newest.name
    assert empty, "before the first save there is none"


def test_a_file_that_is_replaced_has_the_old_content_or_the_new_after_a_power_loss(tmp_path: Path):
    root = tmp_path / "disk"
    root.mkdir()
    with recorded(root) as disk:
        for content in (b"old", b"new"):
            replace_file(root / "a.json", content)
            disk.promised = content
    for promised, state in disk.states:
        assert state.get("a.json") in {None: (None, b"old"), b"old": (b"old", b"new"), b"new": (b"new",)}[promised]


def test_the_replay_loses_what_was_not_synced(tmp_path: Path):
    """So that the tests above can fail."""
    root = tmp_path / "disk"
    root.mkdir()
    with recorded(root) as disk:
        (root / "run/checkpoints/step_00000001").mkdir(parents=True)
        _ = (root / "run/checkpoints/step_00000001/manifest.json").write_bytes(b"{}")
        disk.promised = 1
    left = [state for promised, state in disk.states if promised == 1]
    assert {} in left
    assert any(state.get("run/checkpoints/step_00000001/manifest.json") == b"" for state in left)
    with pytest.raises(UserError, match="nothing to load"):
        _ = newest_checkpoint(written(left[0], tmp_path / "again") / "run")
