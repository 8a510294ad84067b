"""A run of milliseconds: the nano config on eight generated images."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forked import end_all

from resdet.config import Config, load_config
from resdet.engine.train import train

ROOT = Path(__file__).parents[2]
NANO = (
    "data.shapes.train_images=8",
    "data.shapes.val_images=4",
    "train.steps=6",
    "train.log_every=1",
    "train.checkpoint_every=3",
    "optim.warmup_steps=2",
)


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    """A test that failed may have started one that trains without an end."""
    yield
    end_all()


@pytest.fixture
def nano() -> Config:
    return load_config(ROOT / "configs/nano.yaml", overrides=NANO)


@pytest.fixture
def nano_arguments() -> list[str]:
    return [str(ROOT / "configs/nano.yaml"), *NANO]


@pytest.fixture
def read_metrics() -> Any:
    def lines(run: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]

    return lines


@pytest.fixture
def full_run(tmp_path: Path, nano: Config) -> Path:
    """A finished run with a checkpoint after each of its six steps."""
    nano.train.checkpoint_every, nano.train.keep_checkpoints = 1, 10
    nano.eval.every = 2
    run = tmp_path / "full"
    _ = train(nano, run)
    return run
