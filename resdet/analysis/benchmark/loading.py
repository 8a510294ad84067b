"""Measures how many images a second the loader of a classifier makes, beside torchvision's ImageFolder, in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from resdet.config import Config, checked
from resdet.data.batches import photos
from resdet.data.sets.labelled_files import LabelledFiles
from resdet.engine.task.classification import check_side, open_labelled
from resdet.errors import UserError


def benchmark_loading(config: Config, *, against: str | None, pairs: int) -> dict[str, float | int]:
    """Images a second of `data.workers` processes that make training batches of `config`, and of torchvision's.

    Both read the same folder, resize to a random short side, cut a random square and mirror it, without changes of
    colour; torchvision with Pillow and its transforms v2. The two alternate, `pairs` times after a first round that is
    not counted. Before each measurement a loader gives away what it made while the other was measured. Returns the
    medians and the median of the paired ratios (torchvision's seconds over ours: above 1 is faster).

    Raises UserError for images that are not files in a folder per class.
    """
    config = checked(config)
    dataset = open_labelled(config.data, "train")
    if not isinstance(dataset, LabelledFiles):
        raise UserError(f"{dataset.annotations}: its images are in memory, so there is no loader to measure")
    check_side(config, dataset)
    config.data.augment.photometric, config.data.augment.extra = 0.0, []
    contestants: list[Iterator[object]] = [photos.training_batches(dataset, config)]
    if against is not None:
        contestants.append(torchvision_batches(dataset.root, config))
    rounds = 3 * max(config.data.workers, 1)
    seconds = [_timed(contestants, rounds) for _ in range(pairs + 1)][1:]
    images = rounds * config.train.batch_size
    ours = [each[0] for each in seconds]
    results: dict[str, float | int] = {
        "images": images,
        "pairs": pairs,
        "workers": config.data.workers,
        "load/images_per_second": images / statistics.median(ours),
    }
    if against is not None:
        results["load/peer_images_per_second"] = images / statistics.median(each[1] for each in seconds)
        results["load/ratio"] = statistics.median(theirs / own for own, theirs in seconds)
    return results


def torchvision_batches(root: Path, config: Config) -> Iterator[Tensor]:
    """Training batches of torchvision's own pipeline without an end."""
    augment = config.data.augment
    smallest, largest = augment.short_side_range
    transform = v2.Compose(
        [
            v2.RandomShortestSize(list(range(smallest, largest + 1)), antialias=True),
            v2.RandomCrop(augment.crop),
            v2.RandomHorizontalFlip(augment.flip),
            v2.PILToTensor(),
        ]
    )
    loader = DataLoader(
        ImageFolder(str(root), transform),
        config.train.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=config.data.workers,
        persistent_workers=config.data.workers > 0,
        generator=torch.Generator().manual_seed(config.train.seed),
    )
    if not len(loader):
        raise UserError(f"{root}: has fewer than train.batch_size={config.train.batch_size} images; make it smaller")
    while True:
        for images, _ in loader:
            yield images


def _timed(contestants: list[Iterator[object]], rounds: int) -> list[float]:
    """The seconds that each takes for so many batches. A loader works ahead while the other is measured, so each first
    gives the batches away that it has made by then.
    """
    seconds = []
    for batches in contestants:
        for _ in range(rounds):
            _ = next(batches)
        start = time.perf_counter()
        for _ in range(rounds):
            _ = next(batches)
        seconds.append(time.perf_counter() - start)
    return seconds
