"""Creates batches from the configuration: opens the files of a split and runs the worker processes that read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch.utils.data import Dataset, Sampler

from resdet.config import Config, DataConfig
from resdet.data.batches.collate import (
    ImageInfo,
    LoadedBatch,
    Sample,
    collate,
    ground_truth_slots,
    padded_shape,
    size_divisor,
)
from resdet.data.batches.samplers import BatchOrder, evaluation_order, rank_slice, sample_seed
from resdet.data.batches.small_objects import large_enough, report_small_objects
from resdet.data.batches.workers import Batches
from resdet.data.images.decode import ImageError, read_image, resize, resized_size
from resdet.data.images.masks import box_frame_masks
from resdet.data.images.transforms import Augmentation
from resdet.data.sets.coco import CocoDataset
from resdet.data.sets.formats import read_set
from resdet.data.sets.splits import split_files
from resdet.errors import UserError


def open_split(data: DataConfig, split: str) -> CocoDataset:
    """The checked annotations of `split`, "train" or "val"; a generated data set is created at first use."""
    annotations, images = split_files(data, split)
    tolerated = data.max_bad_fraction if data.on_bad_image == "skip" else 0.0
    training = split == "train"
    dataset = read_set(annotations, images, require_objects=training, max_missing_fraction=tolerated)
    return report_small_objects(dataset, data.augment) if training else dataset


def subset(dataset: CocoDataset, count: int) -> CocoDataset:
    """The first `count` images that have objects, to check whether a model can overfit them."""
    found = np.flatnonzero(dataset.objects_per_image() > 0)[:count]
    if not len(found):
        raise UserError(f"{dataset.annotations}: no image has an object; there is nothing to overfit to")
    return dataset.take(found)


def training_batches(
    dataset: CocoDataset, config: Config, *, start_step: int, rank: int, world_size: int
) -> Iterator[LoadedBatch]:
    """This process's share of every global batch from `start_step` on, in an infinite iterator.

    The batch at a step is a pure function of (train.seed, step), whatever the number of workers; its padded shape
    is that of the global batch. Raises UserError for an image that cannot be read, under data.on_bad_image.
    """
    size = config.train.batch_size
    if size % world_size:
        raise UserError(f"train.batch_size={size} cannot be shared by {world_size} processes; make it a multiple")
    augment = config.data.augment
    random = augment.flip > 0 or augment.photometric > 0 or augment.extra
    augmentation = Augmentation(
        flip=augment.flip,
        photometric=augment.photometric,
        extra=augment.extra,
        extra_probability=augment.extra_probability,
    )
    reader = _Reader(
        dataset,
        config,
        short_sides=augment.short_side,
        augmentation=augmentation if random else None,
        mask_resolution=config.data.mask_resolution if config.model.mask_head else None,
    )
    portrait = (dataset.heights > dataset.widths).astype(np.int64)
    order = BatchOrder(portrait, size, config.train.seed)
    keys = _TrainingKeys(reader, order, start_step, rank, world_size)
    return checked_batches(start_loader(reader, keys, config), len(dataset), config)


def evaluation_batches(
    dataset: CocoDataset, config: Config, *, rank: int, world_size: int, mask_resolution: int | None = None
) -> Iterable[LoadedBatch]:
    """This process's share of the images, each image once over all processes; may be iterated several times.

    The targets have masks with `mask_resolution` cells a side; None: no masks.
    """
    short_sides = [config.data.augment.test_short_side]
    reader = _Reader(dataset, config, short_sides=short_sides, mask_resolution=mask_resolution)
    order = evaluation_order(dataset.heights, dataset.widths, config.eval.batch_size)
    keys = [reader.key(batch, batch, epoch=0) for batch in order[rank::world_size]]
    return _Evaluation(dataset, start_loader(reader, keys, config), config)


@dataclass(frozen=True)
class _Evaluation:
    dataset: CocoDataset
    batches: Batches[LoadedBatch | UserError]
    config: Config

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[LoadedBatch]:
        return checked_batches(self.batches, len(self.dataset), self.config)


@dataclass(frozen=True)
class _Key:
    """The information that a worker needs about a batch."""

    indices: tuple[int, ...]
    epoch: int
    shape: tuple[int, int]
    slots: int


@dataclass(frozen=True)
class _TrainingKeys(Sampler[_Key]):
    reader: _Reader
    order: BatchOrder
    start_step: int
    rank: int
    world_size: int

    def __iter__(self) -> Iterator[_Key]:
        for epoch, batch in self.order.from_step(self.start_step):
            yield self.reader.key(rank_slice(batch, self.rank, self.world_size), batch, epoch=epoch)


class _Reader(Dataset[LoadedBatch | UserError]):
    """Builds whole batches, in a worker process or in the main process.

    A UserError is returned, because an exception raised in a worker would arrive with a traceback in its message.
    """

    def __init__(
        self,
        dataset: CocoDataset,
        config: Config,
        *,
        short_sides: Sequence[int],
        augmentation: Augmentation | None = None,
        mask_resolution: int | None = None,
    ) -> None:
        self.dataset, self.short_sides = dataset, short_sides
        self.augmentation, self.mask_resolution = augmentation, mask_resolution
        self.data, self.seed = config.data, config.train.seed
        self.divisor = size_divisor(config.model)

    def key(self, share: Int64[np.ndarray, " n"], batch: Int64[np.ndarray, " m"], *, epoch: int) -> _Key:
        """The key for the `share` of a global batch, padded to the shape of the whole `batch`."""
        sizes = [self._size(index, sample_seed(self.seed, epoch, index)) for index in batch.tolist()]
        objects = np.diff(self.dataset.offsets)[batch].max()
        return _Key(tuple(share.tolist()), epoch, padded_shape(sizes, self.divisor), ground_truth_slots(int(objects)))

    def __getitem__(self, key: _Key) -> LoadedBatch | UserError:
        try:
            samples = [self._sample(index, sample_seed(self.seed, key.epoch, index)) for index in key.indices]
        except UserError as error:
            return error
        return collate(samples, shape=key.shape, slots=key.slots)

    def _size(self, index: int, seed: int) -> tuple[int, int]:
        """The (height, width) after the resize; the seed of a sample selects its short side."""
        short_side = self.short_sides[seed % len(self.short_sides)]
        height, width = int(self.dataset.heights[index]), int(self.dataset.widths[index])
        return resized_size(height, width, short_side, self.data.augment.max_side)

    def _sample(self, index: int, seed: int) -> Sample:
        dataset = self.dataset
        size = self._size(index, seed)
        info = self._info(index, size)
        try:
            original = read_image(dataset.path(index), info.height, info.width, sixteen_bit=self.data.sixteen_bit)
        except ImageError as error:
            if self.data.on_bad_image == "skip":
                return _blank(size, info, seed, str(error), self.mask_resolution)
            raise
        rows = np.arange(dataset.offsets[index], dataset.offsets[index + 1])
        scale = np.array([info.scale_y, info.scale_x])
        rows = rows[dataset.crowd[rows] | large_enough(dataset.boxes[rows], scale)]
        image = resize(original, size)
        boxes = dataset.boxes[rows] * np.array([info.scale_x, info.scale_y] * 2, np.float32)
        corners = np.array([[0, 0], size[::-1]], np.float32)
        if self.augmentation:
            changed = self.augmentation(image, boxes, seed=seed)
            image, boxes, corners = changed.image, changed.boxes, changed.corners
        masks = self._masks(index, rows, boxes, corners) if self.mask_resolution else None
        return Sample(image, boxes, dataset.labels[rows], dataset.crowd[rows], seed, info, masks)

    def _masks(
        self,
        index: int,
        rows: Int64[np.ndarray, " n"],
        boxes: Float32[np.ndarray, "n 4"],
        corners: Float32[np.ndarray, "2 2"],
    ) -> UInt8[np.ndarray, "n B B"]:
        """The objects' masks in the frames of their boxes, sampled once from the original masks; crowd regions have no
        masks.

        `boxes` and the image's `corners` are the positions after resize and augmentation.
        """
        assert self.mask_resolution is not None
        height, width = int(self.dataset.heights[index]), int(self.dataset.widths[index])
        # x decreases if the image is mirrored
        origin, extent = np.tile(corners[0], 2), np.tile(corners[1] - corners[0], 2)
        masks = np.zeros((len(rows), self.mask_resolution, self.mask_resolution), np.uint8)
        single = ~self.dataset.crowd[rows]
        masks[single] = box_frame_masks(
            self.dataset.segmentations,
            rows[single],
            ((boxes - origin) / extent * [width, height, width, height])[single],
            height=height,
            width=width,
            resolution=self.mask_resolution,
        )
        return masks

    def _info(self, index: int, size: tuple[int, int]) -> ImageInfo:
        height, width = int(self.dataset.heights[index]), int(self.dataset.widths[index])
        return ImageInfo(
            image_id=int(self.dataset.image_ids[index]),
            file_name=self.dataset.file_names[index],
            height=height,
            width=width,
            scale_y=size[0] / height,
            scale_x=size[1] / width,
        )


def _blank(size: tuple[int, int], info: ImageInfo, seed: int, problem: str, mask_resolution: int | None) -> Sample:
    """The replacement for an image that cannot be read: black, with one crowd region that excludes every candidate from
    the losses. The other samples and their order do not change.
    """
    reach = 16 * max(size)  # candidates may extend beyond the image's border
    return Sample(
        image=np.zeros((*size, 3), np.uint8),
        boxes=np.array([[-reach, -reach, reach, reach]], np.float32),
        labels=np.zeros(1, np.int64),
        crowd=np.ones(1, bool),
        seed=seed,
        info=info,
        masks=None if mask_resolution is None else np.zeros((1, mask_resolution, mask_resolution), np.uint8),
        problem=problem,
    )


def start_loader(
    reader: Dataset[LoadedBatch | UserError], keys: Iterable[Any], config: Config
) -> Batches[LoadedBatch | UserError]:
    """The batches that the reader makes of the keys, in their order, in data.workers processes."""
    pin_memory = config.train.device != "cpu" and torch.cuda.is_available()
    return Batches(reader, keys, workers=config.data.workers, pin_memory=pin_memory)


def checked_batches(batches: Iterable[LoadedBatch | UserError], images: int, config: Config) -> Iterator[LoadedBatch]:
    """The batches of a data set of so many images. Raises the errors that the readers returned, and stops if more
    images are bad than data.max_bad_fraction permits.
    """
    bad: set[str] = set()
    allowed = config.data.max_bad_fraction * images
    for batch in batches:
        if isinstance(batch, UserError):
            raise UserError(str(batch))  # raised itself, this frame and the workers would live on in its traceback
        bad.update(batch.unreadable.values())
        if len(bad) > allowed:
            raise UserError(
                f"{len(bad)} of {images} images cannot be read, more than "
                f"data.max_bad_fraction={config.data.max_bad_fraction:g}; the last: "
                f"{list(batch.unreadable.values())[-1]}"
            )
        yield batch
