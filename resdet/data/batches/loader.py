"""Creates batches from the configuration: opens the files of a split and runs the worker processes that read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch.utils.data import Dataset, Sampler

from resdet.config import Config, DataConfig
from resdet.data.augment.samples import KeyedSamples, ListedSamples, Samples
from resdet.data.batches.buckets import buckets_of
from resdet.data.batches.collate import LoadedBatch, size_divisor
from resdet.data.batches.draws import expected_draws
from resdet.data.batches.reader import Key, Reader
from resdet.data.batches.samplers import BatchOrder, evaluation_order, rank_slice
from resdet.data.batches.small_objects import report_small_objects
from resdet.data.batches.workers import Batches
from resdet.data.images import kept
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
    reader = Reader(
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
    reader = Reader(dataset, config, samples, mask_resolution=mask_resolution)
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
class _TrainingKeys(Sampler[Key]):
    order: BatchOrder
    start_step: int
    rank: int
    world_size: int
    closing_step: int

    def __iter__(self) -> Iterator[Key]:
        for step, (epoch, batch) in enumerate(self.order.from_step(self.start_step), start=self.start_step):
            share = rank_slice(batch, self.rank, self.world_size)
            yield _key(share, batch, epoch=epoch, closed=step >= self.closing_step)


def _key(share: Int64[np.ndarray, " n"], batch: Int64[np.ndarray, " m"], *, epoch: int, closed: bool = False) -> Key:
    """The key for the `share` of a global batch, padded to the shape of the whole `batch`."""
    return Key(tuple(share.tolist()), tuple(batch.tolist()), epoch, closed)


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
