"""Reads the samples of a batch and puts them together, the same in every process and for any number of workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Dataset

from resdet.config import Config
from resdet.data.augment.samples import Samples
from resdet.data.batches.buckets import Shape, bucket
from resdet.data.batches.collate import (
    ImageInfo,
    LoadedBatch,
    Sample,
    collate,
    ground_truth_slots,
    padded_shape,
    size_divisor,
)
from resdet.data.batches.samplers import sample_seed
from resdet.data.images.decode import ImageError
from resdet.data.sets.coco import CocoDataset
from resdet.errors import UserError


@dataclass(frozen=True)
class Key:
    """The information that a worker needs about a batch: the keys (see `BatchOrder`) of this process's share, and those
    of the whole batch. `closed`: no images are put together.
    """

    indices: tuple[int, ...]
    batch: tuple[int, ...]
    epoch: int
    closed: bool = False


class Reader(Dataset[LoadedBatch | UserError]):
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

    def __getitem__(self, key: Key) -> LoadedBatch | UserError:
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

    def _objects(self, key: Key, samples: Mapping[int, Sample]) -> int:
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
