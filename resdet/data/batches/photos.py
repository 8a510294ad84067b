"""Batches of labelled image files for classifiers, made in worker processes; the images are never all in memory.

Training (He et al. 2015, section 3.4): the short side is drawn from a range, a square is cut out at a random place and
mirrored at random, and the colours are changed. Evaluation: one or several views of each image (`Views`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch.utils.data import Dataset, Sampler

from resdet.config import Config, DataConfig
from resdet.data.batches.collate import ImageInfo, LoadedBatch
from resdet.data.batches.loader import checked_batches, start_loader
from resdet.data.batches.samplers import BatchOrder, rank_slice, sample_seed
from resdet.data.images.decode import ImageError, read_image, resize
from resdet.data.images.transforms import Augmentation
from resdet.data.sets.labelled_files import LabelledFiles
from resdet.errors import UserError
from resdet.structures import Batch, Targets

Image = UInt8[np.ndarray, "_h _w 3"]
Crops = Literal["center", "ten", "full"]
LONGEST = 16  # times the short side: of a longer image the middle is used, so that its resize fits into memory
NO_BOXES = np.zeros((0, 4), np.float32)


@dataclass(frozen=True)
class Views:
    """The views of an image whose probabilities are averaged.

    `short_sides`: the image is resized to each. `crops`: the square of `side` pixels in the centre; or ten, the four
    corners and the centre and their mirror images (Krizhevsky et al. 2012); or the full image, on which the net runs
    fully convolutionally. `flip`: the mirror image of each view too, where `crops` does not have it already.
    """

    side: int
    short_sides: tuple[int, ...]
    crops: Crops = "center"
    flip: bool = False

    @property
    def per_image(self) -> int:
        return len(self.short_sides) * (10 if self.crops == "ten" else 1 + self.flip)

    def of(self, image: Image, short_side: int) -> list[Image]:
        """The views at one scale, all of one size."""
        resized = to_short_side(image, short_side)
        if self.crops == "ten":
            views = [_cut(resized, place, self.side) for place in _corners_and_centre(resized, self.side)]
        else:
            views = [_cut(resized, _centre(resized, self.side), self.side) if self.crops == "center" else resized]
        mirrored = [np.ascontiguousarray(view[:, ::-1]) for view in views] if self.flip or self.crops == "ten" else []
        return views + mirrored


def training_batches(
    dataset: LabelledFiles, config: Config, *, start_step: int = 0, rank: int = 0, world_size: int = 1
) -> Iterator[LoadedBatch]:
    """This process's share of every global batch from `start_step` on, in an infinite iterator; a pure function of
    (train.seed, step), whatever the number of workers. Raises UserError for an image that cannot be read, under
    data.on_bad_image.
    """
    order = BatchOrder(np.zeros(len(dataset), np.int64), config.train.batch_size, config.train.seed)
    keys = _Keys(order, start_step, rank, world_size)
    return checked_batches(start_loader(_TrainingReader(dataset, config), keys, config), len(dataset), config)


def evaluation_batches(
    dataset: LabelledFiles, config: Config, views: Views, *, rank: int = 0, world_size: int = 1
) -> tuple[int, Iterator[LoadedBatch]]:
    """The number of batches, and all views of this process's share of the images, each image once over all processes.

    Row i of a batch is a view of the image `images[i].image_id`, its place in the data set; its views may be spread
    over consecutive batches.
    """
    size = 1 if views.crops == "full" else config.eval.batch_size  # full images differ in size
    groups = [range(start, min(start + size, len(dataset))) for start in range(0, len(dataset), size)]
    keys = [(group, short_side) for group in groups[rank::world_size] for short_side in views.short_sides]
    loader = start_loader(_ViewReader(dataset, config, views), keys, config)
    return len(keys), checked_batches(loader, len(dataset), config)


def to_short_side(image: Image, short_side: int) -> Image:
    """The image (of a very long one the middle) with its short side resized to `short_side` pixels."""
    height, width = image.shape[:2]
    limit = LONGEST * min(height, width)
    top, left = max(0, height - limit) // 2, max(0, width - limit) // 2
    image = image[top : top + limit, left : left + limit]
    height, width = image.shape[:2]
    scale = short_side / min(height, width)
    return resize(image, (max(short_side, round(height * scale)), max(short_side, round(width * scale))))


@dataclass(frozen=True)
class _Keys(Sampler[tuple[int, Int64[np.ndarray, " n"]]]):
    order: BatchOrder
    start_step: int
    rank: int
    world_size: int

    def __iter__(self) -> Iterator[tuple[int, Int64[np.ndarray, " n"]]]:
        for epoch, batch in self.order.from_step(self.start_step):
            yield epoch, rank_slice(batch, self.rank, self.world_size)


class _TrainingReader(Dataset[LoadedBatch | UserError]):
    """Random squares, one per image."""

    def __init__(self, dataset: LabelledFiles, config: Config) -> None:
        augment = config.data.augment
        self.dataset, self.data, self.seed = dataset, config.data, config.train.seed
        (self.smallest, self.largest), self.side = augment.short_side_range, augment.crop
        self.augmentation = Augmentation(
            flip=augment.flip,
            photometric=augment.photometric,
            extra=augment.extra,
            extra_probability=augment.extra_probability,
        )

    def __getitem__(self, key: tuple[int, Int64[np.ndarray, " n"]]) -> LoadedBatch | UserError:
        epoch, indices = key
        seeds = [sample_seed(self.seed, epoch, index) for index in indices.tolist()]
        try:
            rows = [_row(self.dataset, self.data, index) for index in indices.tolist()]
        except ImageError as error:
            return error
        images = [self._cut(row, seed) for row, seed in zip(rows, seeds, strict=True)]
        return _collate(self.dataset, rows, images, seeds)

    def _cut(self, row: _Row, seed: int) -> Image:
        if row.image is None:
            return np.zeros((self.side, self.side, 3), np.uint8)
        rng = np.random.default_rng(seed)
        image = to_short_side(row.image, int(rng.integers(self.smallest, self.largest + 1)))
        top, left = (int(rng.integers(length - self.side + 1)) for length in image.shape[:2])
        return self.augmentation(_cut(image, (top, left), self.side), NO_BOXES, seed=seed).image


class _ViewReader(Dataset[LoadedBatch | UserError]):
    """The views of some images at one scale."""

    def __init__(self, dataset: LabelledFiles, config: Config, views: Views) -> None:
        self.dataset, self.data, self.views = dataset, config.data, views

    def __getitem__(self, key: tuple[Sequence[int], int]) -> LoadedBatch | UserError:
        indices, short_side = key
        try:
            rows = [_row(self.dataset, self.data, index) for index in indices]
        except ImageError as error:
            return error
        blank = np.zeros((short_side, short_side, 3), np.uint8)
        views = [self.views.of(blank if row.image is None else row.image, short_side) for row in rows]
        repeated = [row for row, own in zip(rows, views, strict=True) for _ in own]
        return _collate(self.dataset, repeated, [view for own in views for view in own], [0] * len(repeated))


@dataclass(frozen=True)
class _Row:
    """An image that was read; None with the reason if it could not be."""

    index: int
    image: Image | None
    problem: str | None = None


def _row(dataset: LabelledFiles, data: DataConfig, index: int) -> _Row:
    try:
        return _Row(index, read_image(dataset.path(index), sixteen_bit=data.sixteen_bit))
    except ImageError as error:
        if data.on_bad_image == "skip":
            return _Row(index, None, str(error))
        raise


def _collate(
    dataset: LabelledFiles, rows: Sequence[_Row], images: Sequence[Image], seeds: Sequence[int]
) -> LoadedBatch:
    """The class of an image is one target whose box fills the image; one that could not be read has no valid target."""
    height, width = images[0].shape[:2]
    indices = np.array([row.index for row in rows], np.int64)
    valid = torch.tensor([[row.image is not None] for row in rows])
    targets = Targets(
        boxes=torch.tensor([[0.0, 0.0, width, height]]).expand(len(rows), 1, 4).contiguous(),
        labels=torch.from_numpy(dataset.labels[indices])[:, None],
        crowd=torch.zeros_like(valid),
        valid=valid,
        seeds=torch.tensor(seeds),
    )
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    infos = tuple(
        ImageInfo(row.index, dataset.file_names[row.index], height, width, scale_y=1.0, scale_x=1.0) for row in rows
    )
    unreadable = {row.index: row.problem for row in rows if row.problem}
    return LoadedBatch(Batch(pixels, torch.tensor([[height, width]] * len(rows)), targets), infos, unreadable)


def _cut(image: Image, place: tuple[int, int], side: int) -> Image:
    top, left = place
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def _centre(image: Image, side: int) -> tuple[int, int]:
    return (image.shape[0] - side) // 2, (image.shape[1] - side) // 2


def _corners_and_centre(image: Image, side: int) -> list[tuple[int, int]]:
    bottom, right = image.shape[0] - side, image.shape[1] - side
    return [(0, 0), (0, right), (bottom, 0), (bottom, right), _centre(image, side)]
