"""A process of several that reads shards: the images that it sees at each step (test_shards_in_two_processes.py)."""

from __future__ import annotations

import hashlib
import json
import sys
from itertools import islice
from pathlib import Path

from resdet.config import load_config
from resdet.data.batches.loader import LoadedBatch, evaluation_batches, open_split, training_batches
from resdet.engine.distributed import World, join_world


def described(loaded: LoadedBatch) -> dict[str, object]:
    """The ids of the images, and what tells their pixels and boxes apart from any other."""
    assert loaded.batch.targets is not None
    tensors = (loaded.batch.images, loaded.batch.targets.boxes, loaded.batch.targets.labels)
    digest = hashlib.sha256(b"".join(each.numpy().tobytes() for each in tensors)).hexdigest()
    return {"ids": [image.image_id for image in loaded.images], "digest": digest}


def seen(world: World, overrides: list[str], steps: int, resumed_at: int) -> dict[str, list[dict[str, object]]]:
    """What this process reads: so many steps from the first one, again from a later one, and for an evaluation."""
    config = load_config("nano", overrides=overrides)
    share = {"rank": world.rank, "world_size": world.size}
    train, val = (open_split(config.data, split) for split in ("train", "val"))  # both processes at once
    return {
        "train": [described(each) for each in islice(training_batches(train, config, start_step=0, **share), steps)],
        "resumed": [
            described(each)
            for each in islice(training_batches(train, config, start_step=resumed_at, **share), steps - resumed_at)
        ],
        "val": [described(each) for each in evaluation_batches(val, config, **share)],
    }


def main(output: Path, steps: int, resumed_at: int, overrides: list[str]) -> None:
    """For 0 and for 2 workers in each process."""
    with join_world("cpu") as world:
        found = {workers: seen(world, [*overrides, f"data.workers={workers}"], steps, resumed_at) for workers in (0, 2)}
        _ = (output / f"rank{world.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
