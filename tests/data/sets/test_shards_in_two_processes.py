"""Two processes over gloo divide a data set in shards: each image once an epoch, and a resume reads the same."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from resdet.config import load_config
from resdet.data.batches.loader import open_split
from resdet.data.sets import writers
from resdet.workflows.convert_data import convert_data

SCRIPT = Path(__file__).parent / "process_of_shards.py"
IMAGES, BATCH, EPOCH = 12, 4, 3  # an epoch has three steps


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve training images in shards of five, five and two: no batch and no share ends where a shard does."""
    monkeypatch.setenv("RESDET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(writers, "SHARD_SAMPLES", 5)
    few = [f"data.shapes.train_images={IMAGES}", "data.shapes.val_images=5", "data.shapes.size=64"]
    folder = open_split(load_config("nano", overrides=few).data, "val").annotations.parents[1]
    return convert_data(folder, "shards", tmp_path / "shards").folder


def in_two(
    output: Path, shards: Path, *, workers: int, start: int = 0, steps: int = 2 * EPOCH, cache: str = "fresh"
) -> list[dict[str, Any]]:
    """What each of two processes saw, which open the data set at the same time in a cache that may be empty."""
    output.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "WORLD_SIZE": "2"}
    environment = os.environ | address | {"RESDET_CACHE": str(output / cache)}
    overrides = [f"data.path={shards}", f"train.batch_size={BATCH}", f"data.workers={workers}", "eval.batch_size=2"]
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(output), str(start), str(steps), *overrides],
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    try:
        assert [process.wait() for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    return [json.loads((output / f"{start}-rank{rank}.json").read_text()) for rank in range(2)]


def ids(found: list[dict[str, Any]], split: str, steps: range | None = None) -> Counter[int]:
    """How often each image was seen, over the processes."""
    return Counter(
        number
        for each in found
        for step, batch in enumerate(each[split])
        if steps is None or step in steps
        for number in batch["ids"]
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_every_image_is_read_once_an_epoch_and_a_resume_reads_the_same(
    tmp_path: Path, shards: Path, workers: int
) -> None:
    whole = in_two(tmp_path / "whole", shards, workers=workers)
    every = Counter(range(1, IMAGES + 1))
    assert ids(whole, "train", range(EPOCH)) == every
    assert ids(whole, "train", range(EPOCH, 2 * EPOCH)) == every
    assert ids(whole, "val") == Counter(range(1, 6))
    assert all(len(batch["ids"]) == BATCH // 2 for each in whole for batch in each["train"])
    assert whole[0]["train"] != whole[1]["train"]
    resumed = in_two(tmp_path / "whole", shards, workers=workers, start=2, steps=2 * EPOCH - 2, cache="another")
    assert [each["train"] for each in resumed] == [each["train"][2:] for each in whole]
