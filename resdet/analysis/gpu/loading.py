"""Images a second that the loader of detection makes on the cores of this machine."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from resdet.analysis.gpu.record import Record
from resdet.analysis.gpu.scale import Setting
from resdet.cores import usable_cores
from resdet.data.batches.loader import open_split, training_batches

SECONDS = 8.0  # of reading at most
QUALITY = 90  # of the JPEG files: about 100 kB each, as in COCO
OBJECTS = 7


def loading(record: Record, setting: Setting) -> None:
    """The training batches of both models' configs, from JPEG files of noise in COCO's size."""
    scale, cores = setting.scale, usable_cores()
    with tempfile.TemporaryDirectory() as folder:
        annotations = write_images(Path(folder), scale.images, scale.image_size)
        workers = cores if setting.device == "cuda" else 0
        config = setting.config("Faster R-CNN", f"data.train.annotations={annotations}", f"data.train.images={folder}",
            f"data.workers={workers}", f"train.batch_size={scale.batches[0]}")  # fmt: skip
        batches = training_batches(open_split(config.data, "train"), config, start_step=0, rank=0, world_size=1)
        for _ in range(max(1, workers)):  # the workers have started, and what they made meanwhile is gone
            _ = next(batches)
        rounds, start = 0, time.perf_counter()
        while time.perf_counter() - start < min(SECONDS, setting.seconds_left) and rounds < 20 * scale.images:
            _ = next(batches)
            rounds += 1
        seconds = time.perf_counter() - start
    row = {"workers": workers, "images a second": rounds * scale.batches[0] / seconds,
        "batch": scale.batches[0], "short side": config.data.augment.short_side[0]}  # fmt: skip
    record.row("loader", "Training batches from JPEG files", row)


def write_images(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Writes JPEG files of smooth noise with a few boxes each; returns their annotation file."""
    rng, (height, width) = np.random.default_rng(0), size
    images, annotations = [], []
    for number in range(count):
        name = f"{number:06d}.jpg"
        pixels = cv2.resize(rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8), (width, height))
        _ = cv2.imwrite(str(folder / name), pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        for x, y in rng.uniform(0, 0.5, (OBJECTS, 2)):
            box = [x * width, y * height, 0.4 * width, 0.4 * height]
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": 1, "bbox": box,
                "area": box[2] * box[3], "iscrowd": 0})  # fmt: skip
    file = folder / "annotations.json"
    categories = [{"id": 1, "name": "object"}]
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file
