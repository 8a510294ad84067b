"""Measures the processor time in which training batches of a detector are made, beside other loaders, in one run."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from resdet.analysis.benchmark.loading_peers import Detectron2Like, TorchvisionReference
from resdet.config import Config, checked
from resdet.data.batches.loader import open_split, training_batches
from resdet.data.sets.coco import CocoDataset
from resdet.errors import UserError

Epoch = Callable[[], object]  # reads every image once, in batches


def benchmark_detection_loading(
    config: Config, *, against: str | None, pairs: int, images: int = 64
) -> dict[str, float | int | str]:
    """Images a second of processor time of this process, which reads, augments and collates training batches of
    `config`: decode, resize, flip, and boxes or, with a mask head, masks too.

    With `against`, also of torchvision's references (CocoDetection and its transforms v2, without collation, which
    its detectors do themselves) and of a mapper as Detectron2's (Pillow, a mask an instance by pycocotools). All read
    the same first `images` images with objects, alternately, `pairs` times after a first round that is not counted.
    `load/decode_images_per_second` is OpenCV's decoder alone. The ratios are medians of the paired ratios of
    processor time: above 1, ours is faster. Raises UserError for data without objects.
    """
    config = checked(config)
    config = replace(config, data=replace(config.data, workers=0))
    whole = open_split(config.data, "train")
    found = np.flatnonzero(whole.objects_per_image() > 0)[:images]
    size = config.train.batch_size
    found = found[: len(found) // size * size]
    if not len(found):
        raise UserError(f"{whole.annotations}: has fewer than train.batch_size={size} images with objects to load")
    dataset = whole.take(found)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)  # as in a worker
    try:
        with TemporaryDirectory() as folder:
            contestants = _contestants(dataset, config, Path(folder), against)
            seconds = _alternated(contestants, pairs)
    finally:
        cv2.setNumThreads(threads)
    results: dict[str, float | int | str] = {"images": len(dataset), "pairs": pairs, "masks": int(_with_masks(config))}
    for name, times in seconds.items():
        results[f"load/{name}_images_per_second"] = len(dataset) / statistics.median(times)
        if name != "our":
            results[f"load/{name}_ratio"] = statistics.median(np.divide(times, seconds["our"]).tolist())
    return results


def _with_masks(config: Config) -> bool:
    return config.model.mask_head is not None


def _contestants(dataset: CocoDataset, config: Config, folder: Path, against: str | None) -> dict[str, Epoch]:
    batches = training_batches(dataset, config, start_step=0, rank=0, world_size=1)
    paths = [dataset.path(index) for index in range(len(dataset))]

    def ours() -> None:
        for _ in range(len(dataset) // config.train.batch_size):
            _ = next(batches)

    def decode() -> None:
        for path in paths:
            _ = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR_RGB)

    contestants: dict[str, Epoch] = {"our": ours, "decode": decode}
    if against is not None:
        file = folder / "annotations.json"
        _ = file.write_text(json.dumps(as_coco(dataset)))
        contestants["torchvision"] = TorchvisionReference(file, config)
        contestants["detectron2_like"] = Detectron2Like(file, config)
    return contestants


def as_coco(dataset: CocoDataset) -> dict[str, object]:
    """The kept objects of a data set as the content of a COCO file whose file names are whole paths."""
    images, annotations = [], []
    for index in range(len(dataset)):
        height, width = int(dataset.heights[index]), int(dataset.widths[index])
        images.append({"id": index, "file_name": str(dataset.path(index).absolute()), "height": height, "width": width})
        for row in range(*dataset.rows(index).indices(len(dataset.boxes))):
            x1, y1, x2, y2 = dataset.boxes[row].tolist()
            annotations.append(
                {
                    "id": row + 1,
                    "image_id": index,
                    "category_id": int(dataset.labels[row]),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": float(dataset.areas[row]),
                    "iscrowd": int(dataset.crowd[row]),
                    "segmentation": _shape(dataset, row, height, width),
                }
            )
    categories = [{"id": label, "name": name} for label, name in enumerate(dataset.class_names)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _shape(dataset: CocoDataset, row: int, height: int, width: int) -> list[list[float]] | dict[str, list[int]]:
    runs = dataset.segmentations.run_lengths(row)
    if len(runs):
        return {"size": [height, width], "counts": runs.tolist()}
    return [polygon.ravel().tolist() for polygon in dataset.segmentations.polygons(row)]


def _alternated(contestants: Mapping[str, Epoch], pairs: int) -> dict[str, list[float]]:
    """The seconds of processor time of each in each round, without the first."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(pairs + 1):
        for name, epoch in contestants.items():
            start = time.process_time()
            _ = epoch()
            if turn:
                seconds[name].append(time.process_time() - start)
    return seconds
