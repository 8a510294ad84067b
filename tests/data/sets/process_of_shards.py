"""A process of several that reads shards: the images that it sees at each step (test_shards_in_two_processes.py)."""

from __future__ import annotations

import hashlib
import json
import sys
from itertools import islice
from pathlib import Path

from resdet.config import load_config
from resdet.data.batches.loader import LoadedBatch, evaluation_batches, open_split, training_batches
from resdet.engine.distributed import join_world


def described(loaded: LoadedBatch) -> dict[str, object]:
    """The ids of the images, and what tells their pixels and boxes apart from any other."""
    assert loaded.batch.targets is not None
    tensors = (loaded.batch.images, loaded.batch.targets.boxes, loaded.batch.targets.labels)
    digest = hashlib.sha256(b"".join(each.numpy().tobytes() for each in tensors)).hexdigest()
    return {"ids": [image.image_id for image in loaded.images], "digest": digest}


def main(output: Path, start: int, steps: int, overrides: list[str]) -> None:
    with join_world("cpu") as world:
        config = load_config("nano", overrides=overrides)
        dataset = open_split(config.data, "train")  # both at once, in an empty cache
        batches = training_batches(dataset, config, start_step=start, rank=world.rank, world_size=world.size)
        val = open_split(config.data, "val")
        found = {
            "train": [described(loaded) for loaded in islice(batches, steps)],
            "val": [
                described(each) for each in evaluation_batches(val, config, rank=world.rank, world_size=world.size)
            ],
        }
        _ = (output / f"{start}-rank{world.rank}.json").write_text(json.dumps(world.gather(found)[world.rank]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
