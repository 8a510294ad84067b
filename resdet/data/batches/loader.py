"""Creates batches from the configuration: opens the files of a split and runs the worker processes that read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch.utils.data import Dataset, Sampler

from resdet.config import Config, DataConfig
from resdet.data.augment.samples import KeyedSamples, ListedSamples, Samples
from resdet.data.batches.buckets import Shape, bucket, buckets_of
from resdet.data.batches.collate import (
    ImageInfo,
    LoadedBatch,
    Sample,
    collate,
    ground_truth_slots,
    padded_shape,
    size_divisor,
)
from resdet.data.batches.draws import expected_draws
from resdet.data.batches.samplers import BatchOrder, evaluation_order, rank_slice, sample_seed
from resdet.data.batches.small_objects import report_small_objects
from resdet.data.batches.workers import Batches
from resdet.data.images import kept
from resdet.data.images.decode import ImageError
from resdet.data.images.kept import KeptImages
from resdet.data.images.transforms import Augmentation
from resdet.data.sets.cache import cache_folder
from resdet.data.sets.coco import CocoDataset
from resdet.data.sets.opened import open_set
from resdet.errors import UserError


def open_split(data: DataConfig, split: str) -> CocoDataset:
    """The checked annotations of `split`, "train" or "val"; a generated data set is created at first use."""
    dataset = open_set(data, split)
    if split != "train":
        return dataset
    _ = expected_draws(dataset, data)  # raises for a sampler that does not fit
    dataset = _with_cache(dataset, data)
    if data.augment.transforms is not None:
        _ = ListedSamples(dataset, data)  # raises for a list that does not fit
        return dataset
    return report_small_objects(dataset, data.augment)


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

    The batch at a step is a pure function of (train.seed, step), whatever the number of workers, and of train.steps
    where a list of transforms puts images together (`closing_step`); its padded shape is that of the global batch.
    Raises UserError for an image that cannot be read, under data.on_bad_image.
    """
    size = config.train.batch_size
    if size % world_size:
        raise UserError(f"train.batch_size={size} cannot be shared by {world_size} processes; make it a multiple")
    samples = training_samples(dataset, config.data, kept_images(dataset, config.data))
    last = samples.closed()
    samples.check()
    if last is not samples and config.data.augment.close_mix:
        last.check()
    reader = _Reader(
        dataset,
        config,
        samples,
        last=last,
        mask_resolution=config.data.mask_resolution if config.model.mask_head else None,
        buckets=buckets_of(config.data.augment, size_divisor(config.model), config.data.shape_buckets),
    )
    portrait = (dataset.heights > dataset.widths).astype(np.int64)
    order = BatchOrder(portrait, size, config.train.seed, expected_draws(dataset, config.data))
    keys = _TrainingKeys(order, start_step, rank, world_size, closing_step(config))
    return checked_batches(start_loader(reader, keys, config), len(dataset), config)


def closing_step(config: Config) -> int:
    """The first step, counted from 0, whose images are not put together: `data.augment.close_mix` of all are left."""
    return config.train.steps - round(config.data.augment.close_mix * config.train.steps)


def training_samples(dataset: CocoDataset, data: DataConfig, images: KeptImages | None = None) -> Samples:
    """The source of training samples that `data.augment` describes. Raises UserError for a list that does not fit."""
    augment = data.augment
    if augment.transforms is not None:
        return ListedSamples(dataset, data, images)
    random = augment.flip > 0 or augment.photometric > 0 or augment.extra
    augmentation = Augmentation(
        flip=augment.flip,
        photometric=augment.photometric,
        extra=augment.extra,
        extra_probability=augment.extra_probability,
    )
    return KeyedSamples(dataset, data, augment.short_side, augmentation if random else None, images)


def kept_images(dataset: CocoDataset, data: DataConfig) -> KeptImages | None:
    """Where the decoded images are kept, as `data.cache` says. Raises UserError if there is not enough room."""
    if data.cache == "off":
        return None
    if data.cache == "ram":
        return kept.in_memory(dataset.heights, dataset.widths, workers=data.workers)
    return kept.on_disk(_kept_file(dataset, data), dataset.heights, dataset.widths)


def _kept_file(dataset: CocoDataset, data: DataConfig) -> Path:
    folder, sizes = cache_folder() / "pixels", (dataset.heights, dataset.widths)
    return kept.file_on_disk(folder, dataset.file_names, dataset.images, *sizes, choice=data.sixteen_bit)


def _with_cache(dataset: CocoDataset, data: DataConfig) -> CocoDataset:
    """The data set with a line about what its decoded images will take. Raises UserError if that is not there."""
    if data.cache == "off":
        return dataset
    if data.cache == "ram":
        kept.check_memory(dataset.heights, dataset.widths)
    else:
        kept.check_disk(_kept_file(dataset, data), dataset.heights, dataset.widths)
    size = kept.needed_bytes(dataset.heights, dataset.widths) / 1e9
    where = "memory, for each training process" if data.cache == "ram" else f"the disk, in {cache_folder() / 'pixels'}"
    remark = f"data.cache={data.cache}: the decoded images take up to {size:.2f} GB of {where}"
    return replace(dataset, report=replace(dataset.report, remarks=[*dataset.report.remarks, remark]))


def evaluation_batches(
    dataset: CocoDataset, config: Config, *, rank: int, world_size: int, mask_resolution: int | None = None
) -> Iterable[LoadedBatch]:
    """This process's share of the images, each image once over all processes; may be iterated several times.

    The targets have masks with `mask_resolution` cells a side; None: no masks.
    """
    samples = KeyedSamples(dataset, config.data, short_sides=[config.data.augment.test_short_side])
    reader = _Reader(dataset, config, samples, mask_resolution=mask_resolution)
    order = evaluation_order(dataset.heights, dataset.widths, config.eval.batch_size)
    keys = [_key(batch, batch, epoch=0) for batch in order[rank::world_size]]
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
    """The information that a worker needs about a batch: the keys (see `BatchOrder`) of this process's share, and those
    of the whole batch. `closed`: no images are put together.
    """

    indices: tuple[int, ...]
    batch: tuple[int, ...]
    epoch: int
    closed: bool = False


@dataclass(frozen=True)
class _TrainingKeys(Sampler[_Key]):
    order: BatchOrder
    start_step: int
    rank: int
    world_size: int
    closing_step: int

    def __iter__(self) -> Iterator[_Key]:
        for step, (epoch, batch) in enumerate(self.order.from_step(self.start_step), start=self.start_step):
            share = rank_slice(batch, self.rank, self.world_size)
            yield _key(share, batch, epoch=epoch, closed=step >= self.closing_step)


def _key(share: Int64[np.ndarray, " n"], batch: Int64[np.ndarray, " m"], *, epoch: int, closed: bool = False) -> _Key:
    """The key for the `share` of a global batch, padded to the shape of the whole `batch`."""
    return _Key(tuple(share.tolist()), tuple(batch.tolist()), epoch, closed)


class _Reader(Dataset[LoadedBatch | UserError]):
    """Builds whole batches, in a worker process or in the main process.

    A UserError is returned, because an exception raised in a worker would arrive with a traceback in its message. The
    images of a closed key are those of `last`. With `buckets` a batch has the shape of one of them, and slots for the
    most objects of any image.
    """

    def __init__(
        self,
        dataset: CocoDataset,
        config: Config,
        samples: Samples,
        *,
        last: Samples | None = None,
        mask_resolution: int | None = None,
        buckets: Sequence[Shape] = (),
    ) -> None:
        self.buckets = buckets
        self.dataset, self.mask_resolution = dataset, mask_resolution
        self.samples, self.last = samples, last or samples
        self.data, self.seed = config.data, config.train.seed
        self.divisor = size_divisor(config.model)

    def __getitem__(self, key: _Key) -> LoadedBatch | UserError:
        """The images' sizes follow from the seeds alone, so every process pads to the shape of the global batch."""
        images, source = len(self.dataset), self.last if key.closed else self.samples
        try:
            samples = {
                number: self._sample(source, number % images, sample_seed(self.seed, key.epoch, number))
                for number in key.indices
            }
            others = [number for number in key.batch if number not in samples]
            sizes = [source.size(number % images, sample_seed(self.seed, key.epoch, number)) for number in others]
        except UserError as error:
            return error
        sizes += [sample.image.shape[:2] for sample in samples.values()]
        shape = padded_shape(sizes, self.divisor)
        return collate(
            [samples[number] for number in key.indices],
            shape=bucket(shape, self.buckets) if self.buckets else shape,
            slots=ground_truth_slots(self._objects(key, samples)),
        )

    def _objects(self, key: _Key, samples: Mapping[int, Sample]) -> int:
        """The most objects of an image: the global batch's where an image has its own objects alone; with buckets those
        of the whole set.
        """
        counts = np.diff(self.dataset.offsets)
        if self.buckets:
            return int(counts.max())
        own = max(len(sample.boxes) for sample in samples.values())
        return max(own, int(counts[np.array(key.batch) % len(self.dataset)].max()))

    def _sample(self, source: Samples, index: int, seed: int) -> Sample:
        dataset = self.dataset
        try:
            sampled = source.sample(index, seed, self.mask_resolution)
        except ImageError as error:
            if self.data.on_bad_image == "skip":
                size = source.size(index, seed)
                return _blank(size, self._info(index, size), seed, str(error), self.mask_resolution)
            raise
        size = (sampled.image.shape[0], sampled.image.shape[1])
        return Sample(
            sampled.image,
            sampled.boxes,
            dataset.labels[sampled.rows],
            sampled.ignored,
            seed,
            self._info(index, size),
            sampled.masks,
            dropped=sampled.dropped,
        )

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
