"""The memory of a loader and its two workers over three epochs of a set of the size of COCO's train2017.

python tests/figures/epochs.py [SHARE [masks]]

All 118,287 images are one small JPEG; their 860,001 objects have boxes and polygons as in COCO, and with `masks` the
samples have masks. SHARE takes a part of images and objects.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "datasets"))

from train2017_sized import IMAGES, OBJECTS, write  # pyright: ignore[reportMissingImports]

from resdet.config import load_config
from resdet.data.batches.loader import open_split, training_batches

EPOCHS, BATCH = 3, 64
HEIGHT, WIDTH = 24, 32
BOUND = 1.02  # of the memory after the first epoch


def children() -> list[int]:
    process = os.getpid()
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def memory(process: int) -> tuple[int, int]:
    """The proportional share (Pss) of a process, and what it has alone, in kB."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name.rstrip(":"): int(size) for name, size, _ in map(str.split, lines)}
    return sizes["Pss"], sizes["Private_Clean"] + sizes["Private_Dirty"]


def overrides(folder: Path, images: int, objects: int) -> list[str]:
    """Writes the data set into a folder."""
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    _ = cv2.imwrite(str(folder / "a.jpg"), pixels)
    with (folder / "a.json").open("w") as file:
        write(file, images, objects, sizes=[(HEIGHT, WIDTH)], name=lambda number: "a.jpg")
    files = [f"data.train.annotations={folder / 'a.json'}", f"data.train.images={folder}"]
    return [
        *files,
        "data.workers=2",
        f"train.batch_size={BATCH}",
        f"data.augment.short_side=[{HEIGHT}]",
        "data.augment.flip=0",
    ]


def main(share: str = "1", masks: str = "") -> int:
    """Prints the memory after each epoch."""
    images, total = round(IMAGES * float(share)), []
    with tempfile.TemporaryDirectory(prefix="resdet-epochs-") as name:
        os.environ["RESDET_CACHE"] = f"{name}/cache"
        chosen = overrides(Path(name), images, round(OBJECTS * float(share)))
        chosen += ["model.mask_head.name=fcn"] if masks == "masks" else []
        config = load_config("nano", overrides=chosen)
        dataset = open_split(config.data, "train")
        batches = training_batches(dataset, config, start_step=0, rank=0, world_size=1)
        print(f"{images} images, {len(dataset.boxes)} objects, batches of {BATCH}", flush=True)
        for epoch in range(1, EPOCHS + 1):
            start = time.monotonic()
            objects = sum(int(loaded.batch.targets.valid.sum()) for loaded in islice(batches, -(-images // BATCH)))
            each = [memory(process) for process in (os.getpid(), *children())]
            total.append(sum(pss for pss, _ in each))
            print(
                f"epoch {epoch}: {objects} objects in {time.monotonic() - start:.0f} s; {total[-1] / 1024:.1f} MB "
                f"in all (Pss), alone {', '.join(f'{alone / 1024:.1f}' for _, alone in each)} MB",
                flush=True,
            )
    return int(total[-1] > BOUND * total[0])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
