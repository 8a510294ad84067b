"""Batches of labelled image files: which squares and views they contain, and how they are made."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from resdet.config import Config, load_config
from resdet.data.batches.collate import LoadedBatch
from resdet.data.batches.photos import Views, evaluation_batches, to_short_side, training_batches
from resdet.data.sets.labelled_files import LabelledFiles, folders_of_classes
from resdet.errors import UserError

SIDE = 32


@pytest.fixture
def dataset(tmp_path: Path) -> LabelledFiles:
    """Three classes with 2, 3 and 1 images of 40 x 60; red is the column of a pixel, green its row."""
    for label, count in enumerate((2, 3, 1)):
        folder = tmp_path / f"class{label}"
        folder.mkdir()
        for number in range(count):
            rows, columns = np.mgrid[:40, :60]
            pixels = np.stack([columns, rows, np.full_like(rows, 40 * label + 10 * number)], axis=2).astype(np.uint8)
            assert cv2.imwrite(str(folder / f"{number}.png"), pixels[:, :, ::-1])
    return folders_of_classes(tmp_path)


@pytest.fixture
def config() -> Config:
    return load_config(
        overrides=[
            "task=classification",
            f"data.augment={{short_side_range: [40, 40], crop: {SIDE}, test_short_side: 40, flip: 0.0}}",
            "data.workers=0",
            "train.batch_size=4",
            "eval.batch_size=2",
        ]
    )


def taken(dataset: LabelledFiles, config: Config, count: int, **where: int) -> list[LoadedBatch]:
    return list(islice(training_batches(dataset, config, **where), count))


def labels(loaded: LoadedBatch) -> list[int]:
    assert loaded.batch.targets is not None
    return loaded.batch.targets.labels[:, 0].tolist()


def test_a_training_image_is_a_random_square_of_the_resized_image(dataset: LabelledFiles, config: Config) -> None:
    """At its own short side of 40 the pixels are unchanged, so red and green say where the square lies."""
    corners = set()
    for loaded in taken(dataset, config, 8):
        images = loaded.batch.images
        assert images.shape == (4, 3, SIDE, SIDE)
        left, top = images[:, 0, 0, 0], images[:, 1, 0, 0]
        corners |= set(zip(left.tolist(), top.tolist(), strict=True))
        grid = torch.arange(SIDE)
        assert_close(images[:, 0], (left[:, None, None] + grid[None, None]).expand(4, SIDE, SIDE).to(torch.uint8))
        assert_close(images[:, 1], (top[:, None, None] + grid[None, :, None]).expand(4, SIDE, SIDE).to(torch.uint8))
        assert [int(blue) // 40 for blue in images[:, 2, 0, 0]] == labels(loaded)
    assert len(corners) > 20
    assert {left for left, _ in corners} <= set(range(60 - SIDE + 1))
    assert {top for _, top in corners} <= set(range(40 - SIDE + 1))


def test_the_short_side_is_drawn_from_the_whole_range(dataset: LabelledFiles, config: Config) -> None:
    """In an image that is 2 times as large, red grows by half a level a pixel."""
    config.data.augment.short_side_range = [40, 80]
    spans = [
        int(image[0].max()) - int(image[0].min())
        for loaded in taken(dataset, config, 20)
        for image in loaded.batch.images
    ]
    assert min(spans) <= SIDE / 2 + 1
    assert max(spans) >= SIDE - 3
    assert len(set(spans)) > 10


def test_half_of_the_squares_are_mirrored(dataset: LabelledFiles, config: Config) -> None:
    config.data.augment.flip = 0.5
    images = torch.cat([loaded.batch.images for loaded in taken(dataset, config, 25)]).int()
    mirrored = (images[:, 0, 0, 0] > images[:, 0, 0, -1]).float().mean()
    assert 0.35 < mirrored < 0.65


def test_a_batch_is_a_pure_function_of_seed_and_step_whatever_the_workers(
    dataset: LabelledFiles, config: Config
) -> None:
    config.data.augment.flip, config.data.augment.extra = 0.5, ["pca_colour"]
    first = taken(dataset, config, 4)
    config.data.workers = 2
    for ours, again in zip(first[2:], taken(dataset, config, 2, start_step=2), strict=True):
        assert torch.equal(ours.batch.images, again.batch.images)
        assert ours.images == again.images
    config.train.seed = 1
    assert not torch.equal(taken(dataset, config, 1)[0].batch.images, first[0].batch.images)


def test_processes_share_the_batch(dataset: LabelledFiles, config: Config) -> None:
    (whole,) = taken(dataset, config, 1)
    shares = [taken(dataset, config, 1, rank=rank, world_size=2)[0].batch.images for rank in range(2)]
    assert torch.equal(torch.cat(shares), whole.batch.images)


def viewed(dataset: LabelledFiles, config: Config, views: Views, **where: int) -> list[LoadedBatch]:
    expected, batches = evaluation_batches(dataset, config, views, **where)
    found = list(batches)
    assert len(found) == expected
    return found


def corner(image: Tensor) -> tuple[int, int]:
    """Column and row of the original at the first pixel of a view."""
    return int(image[0, 0, 0]), int(image[1, 0, 0])


def test_the_central_square_by_hand(dataset: LabelledFiles, config: Config) -> None:
    batches = viewed(dataset, config, Views(SIDE, (40,)))
    assert [labels(loaded) for loaded in batches] == [[0, 0], [1, 1], [1, 2]]
    assert all(corner(image) == (14, 4) for loaded in batches for image in loaded.batch.images)


def test_ten_crops_are_the_corners_the_centre_and_their_mirror_images(dataset: LabelledFiles, config: Config) -> None:
    views = Views(SIDE, (40,), "ten")
    assert views.per_image == 10
    (first, *_) = viewed(dataset, config, views)
    assert first.batch.images.shape == (20, 3, SIDE, SIDE)
    assert [image.image_id for image in first.images] == [0] * 10 + [1] * 10
    corners = [corner(image) for image in first.batch.images[:5]]
    assert corners == [(0, 0), (28, 0), (0, 8), (28, 8), (14, 4)]
    assert torch.equal(first.batch.images[5:10], first.batch.images[:5].flip(-1))


def test_full_images_at_several_scales_each_in_a_batch_of_its_own(dataset: LabelledFiles, config: Config) -> None:
    views = Views(SIDE, (20, 40), "full", flip=True)
    assert views.per_image == 4
    batches = viewed(dataset, config, views)
    assert [loaded.batch.images.shape for loaded in batches[:2]] == [(2, 3, 20, 30), (2, 3, 40, 60)]
    assert [loaded.images[0].image_id for loaded in batches] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert torch.equal(batches[1].batch.images[1], batches[1].batch.images[0].flip(-1))


def test_each_image_is_evaluated_by_one_process(dataset: LabelledFiles, config: Config) -> None:
    views = Views(SIDE, (32, 40), "full")
    seen = [
        {
            image.image_id
            for loaded in viewed(dataset, config, views, rank=rank, world_size=2)
            for image in loaded.images
        }
        for rank in range(2)
    ]
    assert seen[0] | seen[1] == set(range(6))
    assert not seen[0] & seen[1]


def test_of_a_very_long_image_the_middle_is_used() -> None:
    image = np.zeros((2, 1000, 3), np.uint8)
    image[:, 484:516] = 255
    resized = to_short_side(image, 64)
    assert resized.shape == (64, 1024, 3)
    assert resized.min() == 255


def test_a_truncated_file_is_named_before_it_is_learned_from(dataset: LabelledFiles, config: Config) -> None:
    file = dataset.path(3)
    _ = file.write_bytes(file.read_bytes()[:60])
    for workers in (0, 1):
        config.data.workers = workers
        with pytest.raises(UserError, match=r"class1/1.png: is truncated or damaged; download or export it again"):
            _ = taken(dataset, config, 3)


def test_a_skipped_file_has_no_valid_label_and_changes_no_other_row(dataset: LabelledFiles, config: Config) -> None:
    config.data.on_bad_image, config.data.max_bad_fraction = "skip", 0.5
    before = taken(dataset, config, 3)
    _ = dataset.path(3).write_bytes(b"")
    for ours, now in zip(before, taken(dataset, config, 3), strict=True):
        assert now.batch.targets is not None
        lost = torch.tensor([image.image_id == 3 for image in now.images])
        assert torch.equal(now.batch.targets.valid[:, 0], ~lost)
        assert torch.equal(ours.batch.images[~lost], now.batch.images[~lost])
        assert len(now.skipped) == int(lost.any())
    config.data.max_bad_fraction = 0.1
    with pytest.raises(UserError, match=r"1 of 6 images cannot be read, more than data\.max_bad_fraction=0\.1"):
        _ = taken(dataset, config, 3)


def test_the_set_holds_names_and_no_pixels(dataset: LabelledFiles) -> None:
    assert len(dataset.file_names.blob) < 100
    assert replace(dataset).path(0).name == "0.png"
