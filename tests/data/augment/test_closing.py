"""In the last part of a run no images are put together (`data.augment.close_mix`)."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from resdet.config import Config
from resdet.data.augment.samples import KeyedSamples, ListedSamples
from resdet.data.augment.table import PRESETS, TRANSFORMS
from resdet.data.batches.loader import LoadedBatch, closing_step, training_batches, training_samples
from resdet.data.images.decode import read_image
from resdet.data.sets.coco import CocoDataset
from resdet.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
MIXING: list[Any] = [
    {"mosaic": {"size": 160}},
    {"copy_paste": {"p": 1.0}},
    {"mixup": {"p": 1.0}},
    {"horizontal_flip": {}},
]


@pytest.fixture
def mixed(config: Config) -> Config:
    """Six steps, of which the last two do not mix."""
    config.data.augment.transforms, config.data.augment.close_mix, config.train.steps = MIXING, 1 / 3, 6
    return config


def batches(dataset: CocoDataset, config: Config, *, start_step: int = 0) -> list[LoadedBatch]:
    endless = training_batches(dataset, config, start_step=start_step, rank=0, world_size=1)
    return list(islice(endless, config.train.steps - start_step))


def assert_same(one: list[LoadedBatch], other: list[LoadedBatch]) -> None:
    for ours, theirs in zip(one, other, strict=True):
        assert torch.equal(ours.batch.images, theirs.batch.images)
        assert ours.dropped == theirs.dropped
        assert ours.batch.targets is not None
        assert theirs.batch.targets is not None
        assert torch.equal(ours.batch.targets.boxes, theirs.batch.targets.boxes)


@pytest.mark.parametrize(
    ("steps", "share", "first"),
    [(90_000, 0.1, 81_000), (10, 0.1, 9), (20, 0.1, 18), (4, 0.1, 4), (10, 0.7, 3), (7, 0.0, 7), (7, 1.0, 0)],
)
def test_the_last_share_of_the_steps_does_not_mix(config: Config, steps: int, share: float, first: int) -> None:
    config.train.steps, config.data.augment.close_mix = steps, share
    assert closing_step(config) == first


def test_images_are_put_together_up_to_the_closing_step_and_not_after_it(dataset: CocoDataset, mixed: Config) -> None:
    """With mixup, mosaics of four and pasted objects an image has objects of others; at the end only its own."""
    rows = {
        int(number): set(range(*dataset.offsets[index : index + 2])) for index, number in enumerate(dataset.image_ids)
    }
    own_alone: list[bool] = []
    samples = ListedSamples(dataset, mixed.data)
    for source in (samples, samples.closed()):
        found = [set(source.sample(index, seed, None).rows.tolist()) for index in range(4) for seed in range(3)]
        own = [rows[int(dataset.image_ids[index])] for index in range(4) for _ in range(3)]
        own_alone += [all(each <= its for each, its in zip(found, own, strict=True))]
    assert own_alone == [False, True]
    seen = batches(dataset, mixed)
    mixed.data.augment.close_mix = 0.0
    assert_same(seen[:4], batches(dataset, mixed)[:4])
    mixed.data.augment.close_mix = 1.0
    assert_same(seen[4:], batches(dataset, mixed)[4:])
    assert not torch.equal(seen[3].batch.images, batches(dataset, mixed)[3].batch.images)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_step_has_the_same_sample_after_a_resume_and_for_any_number_of_workers(
    dataset: CocoDataset, mixed: Config, workers: int
) -> None:
    """From before the closing step, from it, and from after it."""
    alone = batches(dataset, mixed)
    mixed.data.workers = workers
    for start in (0, 3, 4, 5):
        assert_same(alone[start:], batches(dataset, mixed, start_step=start))


def test_two_processes_pad_to_the_sizes_of_the_closed_images(dataset: CocoDataset, mixed: Config) -> None:
    """Mixup of images of other sizes has the larger sides of both; alone, an image keeps its own."""
    mixed.data.augment.transforms = [{"short_side": {"range": [80, 120]}}, {"mixup": {"p": 1.0}}]
    whole = batches(dataset, mixed)
    halves = [
        list(islice(training_batches(dataset, mixed, start_step=0, rank=rank, world_size=2), mixed.train.steps))
        for rank in range(2)
    ]
    for step, loaded in enumerate(whole):
        assert torch.equal(torch.cat([half[step].batch.images for half in halves]), loaded.batch.images)


def test_a_closed_mosaic_is_its_image_alone_on_the_square(dataset: CocoDataset, mixed: Config) -> None:
    """At the scale 1 the long side of the image is that of the square: nothing of it is cut, the rest is grey."""
    mixed.data.augment.transforms = [{"mosaic": {"size": 160, "scale": [1.0, 1.0]}}]
    sample = ListedSamples(dataset, mixed.data).closed().sample(0, 0, None)
    assert sample.image.shape == (160, 160, 3)
    height, width = int(dataset.heights[0]), int(dataset.widths[0])
    image = read_image(dataset.path(0), height, width)
    scale = 160 / max(height, width)
    assert abs((sample.image != 114).any(axis=2).sum() - image[:, :, 0].size * scale**2) < 0.02 * 160**2
    np.testing.assert_array_equal(sample.rows, np.arange(dataset.offsets[0], dataset.offsets[1]))


def test_every_transform_of_several_images_has_a_form_for_one(dataset: CocoDataset, config: Config) -> None:
    config.data.augment.transforms = [{name: {}} for name in TRANSFORMS if name in ("mosaic", "mixup", "copy_paste")]
    assert len(config.data.augment.transforms) == len([each for each in TRANSFORMS.values() if hasattr(each, "images")])
    closed = ListedSamples(dataset, config.data).closed()
    assert closed.sample(0, 0, None).rows.tolist() == list(range(*dataset.offsets[:2]))


def test_samples_that_put_nothing_together_are_the_same_to_the_end(dataset: CocoDataset, config: Config) -> None:
    keyed = training_samples(dataset, config.data)
    assert isinstance(keyed, KeyedSamples)
    assert keyed.closed() is keyed
    config.data.augment.transforms = [{"lsj": {}}]
    listed = training_samples(dataset, config.data)
    assert listed.closed() is listed


def test_heavy_ends_as_ultralytics_does() -> None:
    assert [next(iter(row)) for row in PRESETS["heavy"]][:2] == ["mosaic", "mixup"]
    assert PRESETS["heavy"][0] == {"mosaic": {}}, "every image is mixed until the end closes it"
    assert Config().data.augment.close_mix == 0.1


def test_a_list_that_fails_only_once_it_is_closed_is_refused_before_the_first_step(
    dataset: CocoDataset, config: Config
) -> None:
    """Mixed with a higher one the image of 100 x 150 can be cut to 110 x 110, and alone it cannot."""
    mixup = {"mixup": {"p": 1.0}}
    config.data.augment.transforms = [mixup, mixup, {"RandomCrop": {"height": 110, "width": 110, "p": 1.0}}]
    ListedSamples(dataset, config.data).check()
    with pytest.raises(UserError, match="RandomCrop cannot change an image 100 high and 150 wide"):
        _ = training_batches(dataset, config, start_step=0, rank=0, world_size=1)
    config.data.augment.close_mix = 0.0
    _ = training_batches(dataset, config, start_step=0, rank=0, world_size=1)
