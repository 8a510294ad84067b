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
RESUMED_AT = 2


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes saw, which opened the data set at the same time in an empty cache. Twelve images are
    in shards of five, five and two: no batch and no share ends where a shard does.
    """
    folder = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESDET_CACHE", str(folder / "cache"))
        patch.setattr(writers, "SHARD_SAMPLES", 5)
        few = [f"data.shapes.train_images={IMAGES}", "data.shapes.val_images=5", "data.shapes.size=64"]
        source = open_split(load_config("nano", overrides=few).data, "val").annotations.parents[1]
        shards = convert_data(source, "shards", folder / "shards").folder
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "WORLD_SIZE": "2"}
    overrides = [f"data.path={shards}", f"train.batch_size={BATCH}", "eval.batch_size=2"]
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder), str(2 * EPOCH), str(RESUMED_AT), *overrides],
            env=os.environ | address | {"RESDET_CACHE": str(folder / "empty"), "RANK": str(rank), "LOCAL_RANK": "0"},
        )
        for rank in range(2)
    ]
    assert [process.wait() for process in processes] == [0, 0]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def ids(batches: list[dict[str, Any]]) -> Counter[int]:
    return Counter(number for batch in batches for number in batch["ids"])


@pytest.mark.parametrize("workers", ["0", "2"])
def test_every_image_is_read_once_an_epoch_and_a_resume_reads_the_same(two: list[dict[str, Any]], workers: str) -> None:
    first, second = (each[workers] for each in two)
    every = Counter(range(1, IMAGES + 1))
    for epoch in (slice(EPOCH), slice(EPOCH, 2 * EPOCH)):
        assert ids(first["train"][epoch] + second["train"][epoch]) == every
    assert ids(first["val"] + second["val"]) == Counter(range(1, 6))
    assert all(len(batch["ids"]) == BATCH // 2 for each in (first, second) for batch in each["train"])
    assert [each["resumed"] for each in (first, second)] == [each["train"][RESUMED_AT:] for each in (first, second)]


def test_the_number_of_workers_changes_nothing(two: list[dict[str, Any]]) -> None:
    assert [each["0"] for each in two] == [each["2"] for each in two]
    assert two[0]["0"]["train"] != two[1]["0"]["train"]
