"""The law of a resumed run: whatever is switched on, it ends with the same bits as a run without interruption."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from resdet.config import Config
from resdet.engine.checkpoint import MODEL, checkpoint_path, checkpoints, read_model_file, read_state
from resdet.engine.train import train

OF_THE_CLOCK = {"images_per_second", "data_wait"}


def assert_resume_is_exact(config: Config, folder: Path, *, at: tuple[int, ...] = (2,)) -> Path:
    """Trains once, then again from the checkpoint of each step in `at`, and compares weights, state and log bit by bit.

    Returns the folder of the uninterrupted run.
    """
    config.train.checkpoint_every, config.train.keep_checkpoints = 1, 1000
    full = folder / "full"
    _ = train(config, full)
    end = last_step(full)
    for step in at:
        run = folder / f"resumed-{step}"
        _ = shutil.copytree(full, run)
        for path in checkpoints(run):
            if path.name > checkpoint_path(run, step).name:
                shutil.rmtree(path)
        _ = torch.manual_seed(99)  # whatever the process did before
        _ = train(config, run, resume=True)
        assert last_step(run) == end
        ours, theirs = (read_model_file(checkpoint_path(path, end) / MODEL).weights for path in (run, full))
        assert_same(ours, theirs, "weights")
        ours, theirs = (read_state(checkpoint_path(path, end)) for path in (run, full))
        assert_same(ours, theirs, "state")
        assert logged(run) == logged(full)
    return full


def last_step(run: Path) -> int:
    return int(checkpoints(run)[-1].name.removeprefix("step_"))


def logged(run: Path) -> list[dict[str, Any]]:
    """The lines of the metrics without what a clock measures."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in OF_THE_CLOCK} for line in lines]


def assert_same(ours: Any, theirs: Any, where: str) -> None:
    assert type(ours) is type(theirs), where
    if isinstance(ours, torch.Tensor):
        assert ours.dtype == theirs.dtype, where
        assert torch.equal(ours, theirs), where
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for name in ours:
            assert_same(ours[name], theirs[name], f"{where}.{name}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), where
        for i, pair in enumerate(zip(ours, theirs, strict=True)):
            assert_same(*pair, f"{where}[{i}]")
    else:
        assert ours == theirs, where


def weights_hash(run: Path, step: int) -> str:
    weights = read_model_file(checkpoint_path(run, step) / MODEL).weights
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(weights[name].numpy().tobytes())
    return digest.hexdigest()
