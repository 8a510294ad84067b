"""Labelled images of one size, held in memory: CIFAR-10, and a generated data set in its place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from zipfile import BadZipFile

import cv2
import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import check_integrity

from resdet.data.batches.collate import ImageInfo, LoadedBatch
from resdet.data.batches.samplers import BatchOrder, rank_slice, sample_seed
from resdet.data.sets.cache import cache_folder
from resdet.data.sets.shapes import CLASSES, SPLITS, draw_scene
from resdet.errors import UserError
from resdet.files import whole_file, writing
from resdet.structures import Batch, Targets

PATCHES_VERSION = 1  # of the generator: part of the name in the cache
SCENE_SIDES = 5  # a patch is cut from a scene that is this many times as large


@dataclass(frozen=True)
class LabelledReport:
    """The content of a data set, for the log and for data_report.json."""

    source: str
    images: int
    classes: int
    side: int

    def summary(self) -> str:
        return f"{self.images} images of {self.side} pixels, {self.classes} classes ({self.source})"

    def to_dict(self) -> dict[str, str | int]:
        return {"source": self.source, "images": self.images, "classes": self.classes, "side": self.side}


@dataclass(frozen=True)
class LabelledImages:
    """M images and their classes. `annotations` is the path of the data set."""

    annotations: Path
    images: UInt8[np.ndarray, "M side side 3"]
    labels: Int64[np.ndarray, " M"]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def category_ids(self) -> Int64[np.ndarray, " K"]:
        return np.arange(len(self.class_names))

    @property
    def report(self) -> LabelledReport:
        return LabelledReport(str(self.annotations), len(self), len(self.class_names), self.images.shape[1])

    @cached_property
    def mean(self) -> UInt8[np.ndarray, "3"]:
        """The mean colour."""
        return np.rint(self.images.mean(axis=(0, 1, 2))).astype(np.uint8)

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256("\0".join(self.class_names).encode())
        digest.update(self.images.tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()

    def first(self, count: int) -> LabelledImages:
        return LabelledImages(self.annotations, self.images[:count], self.labels[:count], self.class_names)


def cifar10(root: Path, split: str) -> LabelledImages:
    """CIFAR-10 in its own format, from `root`/cifar10/cifar-10-batches-py: 50,000 images to train, 10,000 to test.

    The files are pickles, and reading a pickle can execute code, so the checksum of each file is compared with the
    published one first. Raises UserError for a file that is missing or has another checksum.
    """
    folder = root / "cifar10" / CIFAR10.base_folder
    remedy = f"unpack {CIFAR10.filename} ({CIFAR10.url}) in {folder.parent}, or set data.root"
    meta = [CIFAR10.meta["filename"], CIFAR10.meta["md5"]]
    for name, checksum in (*CIFAR10.train_list, *CIFAR10.test_list, meta):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing; {remedy}")
        if not check_integrity(folder / name, checksum):
            raise UserError(f"{folder / name} is not CIFAR-10's own (its md5 is not {checksum}); {remedy}")
    read = CIFAR10(folder.parent, train=split == "train", download=False)
    labels = np.array(read.targets, np.int64)
    return LabelledImages(folder, np.ascontiguousarray(read.data), labels, tuple(read.classes))


def shapes_patches(split: str, *, count: int, size: int, seed: int) -> LabelledImages:
    """The eight shapes, one per patch, on textured backgrounds. A pure function of its arguments.

    They are drawn once, then read from the cache ($RESDET_CACHE, else ~/.cache/resdet).
    """
    cache = cache_folder()
    file = cache / f"patches-v{PATCHES_VERSION}-{size}px-{split}{count}-seed{seed}.npz"
    if not file.is_file():
        drawn = [
            draw_patch(np.random.default_rng([seed, SPLITS.index(split), index]), size=size) for index in range(count)
        ]
        images, labels = np.stack([image for image, _ in drawn]), np.array([label for _, label in drawn], np.int64)
        with writing(cache, "set RESDET_CACHE to a folder with room"):
            cache.mkdir(parents=True, exist_ok=True)
            with whole_file(file) as part, part.open("wb") as stream:
                np.savez(stream, images=images, labels=labels)
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return LabelledImages(file, arrays["images"], arrays["labels"], CLASSES)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise UserError(f"{file}: not readable ({type(error).__name__}); delete it, and it is drawn again") from None


def draw_patch(rng: np.random.Generator, *, size: int) -> tuple[UInt8[np.ndarray, "size size 3"], int]:
    """One shape and its label, cut out of a scene with a margin of up to half of its own size, not centred."""
    side = SCENE_SIDES * size
    scene = draw_scene(rng, size=side, max_objects=1)
    while not scene.labels:  # the only object extended too far beyond the border
        scene = draw_scene(rng, size=side, max_objects=1)
    rows, columns = np.nonzero(scene.masks[0])
    extent = int(max(np.ptp(rows), np.ptp(columns))) + 1
    window = min(side, round(extent * rng.uniform(1.1, 1.5)))
    top, left = (_window_start(rng, values, window, side) for values in (rows, columns))
    cut = scene.image[top : top + window, left : left + window]
    return cv2.resize(cut, (size, size), interpolation=cv2.INTER_AREA), scene.labels[0]


def _window_start(rng: np.random.Generator, covered: Int64[np.ndarray, " _"], window: int, side: int) -> int:
    """The beginning of a window that contains all covered rows (or columns) and lies inside the scene."""
    low, high = max(0, int(covered.max()) + 1 - window), min(int(covered.min()), side - window)
    return int(rng.integers(low, high + 1))


def training_batches(
    dataset: LabelledImages,
    *,
    batch_size: int,
    seed: int,
    pad: int,
    flip: float,
    start_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[LoadedBatch]:
    """A process's share of every global batch from `start_step` on, in an infinite iterator; a pure function of (seed,
    step).

    Each image is padded by `pad` pixels of the set's mean colour (zero after normalization), cut back to its size at a
    random place, and flipped with probability `flip` (He et al. 2015, section 4.2, with `pad` 4 and `flip` 0.5).
    """
    order = BatchOrder(np.zeros(len(dataset), np.int64), batch_size, seed)
    for epoch, batch in order.from_step(start_step):
        indices = rank_slice(batch, rank, world_size)
        seeds = np.array([sample_seed(seed, epoch, index) for index in indices.tolist()], np.int64)
        images = augmented(dataset.images[indices], seeds, pad=pad, flip=flip, fill=dataset.mean)
        yield _loaded(dataset, indices, images, seeds)


def evaluation_batches(
    dataset: LabelledImages, *, batch_size: int, rank: int = 0, world_size: int = 1
) -> Iterator[LoadedBatch]:
    """A process's share of the images, each image once over all processes, without augmentation."""
    everything = np.arange(len(dataset))
    batches = [everything[start : start + batch_size] for start in range(0, len(dataset), batch_size)]
    for indices in batches[rank::world_size]:
        yield _loaded(dataset, indices, dataset.images[indices], indices)


def augmented(
    images: UInt8[np.ndarray, "N side side 3"],
    seeds: Int64[np.ndarray, " N"],
    *,
    pad: int,
    flip: float,
    fill: UInt8[np.ndarray, "3"],
) -> UInt8[np.ndarray, "N side side 3"]:
    """Each image cut out of its padded version and flipped, as determined by its seed in [0, 2**32)."""
    count, side = images.shape[:2]
    padded = np.empty((count, side + 2 * pad, side + 2 * pad, 3), np.uint8)
    padded[:] = fill
    padded[:, pad : pad + side, pad : pad + side] = images
    places, rest = seeds % (2 * pad + 1) ** 2, seeds // (2 * pad + 1) ** 2
    tops, lefts = np.divmod(places, 2 * pad + 1)
    flips = rest % 1000 < round(1000 * flip)
    changed = np.empty_like(images)
    for row, (top, left, flipped) in enumerate(zip(tops, lefts, flips, strict=True)):
        cut = padded[row, top : top + side, left : left + side]
        changed[row] = cut[:, ::-1] if flipped else cut
    return changed


def _loaded(
    dataset: LabelledImages,
    indices: Int64[np.ndarray, " N"],
    images: UInt8[np.ndarray, "N side side 3"],
    seeds: Int64[np.ndarray, " N"],
) -> LoadedBatch:
    """The class of an image is represented as one target whose box fills the image."""
    count, side = images.shape[:2]
    infos = tuple(
        ImageInfo(index, f"{dataset.annotations.name}[{index}]", side, side, scale_y=1.0, scale_x=1.0)
        for index in indices.tolist()
    )
    valid = torch.ones(count, 1, dtype=torch.bool)
    targets = Targets(
        boxes=torch.tensor([[0.0, 0.0, side, side]]).expand(count, 1, 4).contiguous(),
        labels=torch.from_numpy(dataset.labels[indices])[:, None],
        crowd=~valid,
        valid=valid,
        seeds=torch.from_numpy(seeds),
    )
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return LoadedBatch(Batch(pixels, torch.full((count, 2), side), targets), infos)
