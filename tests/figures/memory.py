"""The memory of a training and its workers over many steps, on a data set of many records.

python tests/figures/memory.py [STEPS [RECORDS]]
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from runs import ended, nano, started, steps_of

BOUND = 1.02  # of the memory after a tenth of the steps


def shares(process: int) -> int:
    """The proportional share of the memory (Pss) of a process and its children, in kB."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    lines = [
        line for each in (process, *children) for line in Path(f"/proc/{each}/smaps_rollup").read_text().split("\n")
    ]
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def many_images(folder: Path, split: str, count: int) -> list[str]:
    """Overrides for a split of so many images with an object each; all images are one file."""
    _ = cv2.imwrite(str(folder / "a.png"), np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    images = [{"id": i, "file_name": "a.png", "height": 32, "width": 32} for i in range(1, count + 1)]
    objects = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": [i % 8, i % 7, 20, 20], "area": 400, "iscrowd": 0}
        for i in range(1, count + 1)
    ]
    content = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "cat"}]}
    _ = (folder / f"{split}.json").write_text(json.dumps(content))
    files = {"annotations": folder / f"{split}.json", "images": folder}
    return [f"data.{split}.{key}={value}" for key, value in files.items()]


def main(steps: str = "5000", records: str = "200000") -> int:
    """Prints the memory after a tenth of the steps and near their end."""
    with tempfile.TemporaryDirectory(prefix="resdet-memory-") as folder:
        sets = [*many_images(Path(folder), "train", int(records)), *many_images(Path(folder), "val", 4)]
        config = nano(
            *(f"train.steps={steps}", "train.log_every=10", "train.checkpoint_every=100000", "data.workers=2"), *sets
        )
        run = Path(folder) / "run"
        child, seen = started(config, run), []
        for share in (0.1, 0.95):
            while not (done := steps_of(run)) or done[-1] < share * int(steps):
                time.sleep(0.2)
            seen.append((done[-1], shares(child)))
        assert ended(child) == 0
    (first, before), (last, after) = seen
    print(f"memory of a training with two workers and {records} records (Pss): {before / 1024:.1f} MB at step {first},"
          f" {after / 1024:.1f} MB at step {last} ({after / before - 1:+.2%})", flush=True)  # fmt: skip
    return int(after > before * BOUND)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
