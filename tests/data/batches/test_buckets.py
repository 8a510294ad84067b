"""Training batches have one of a few shapes, each of which holds its images (`data.shape_buckets`)."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from resdet.config import AugmentConfig, load_config
from resdet.data.batches.buckets import bucket, buckets, buckets_of
from resdet.data.batches.collate import padded_shape, size_divisor
from resdet.data.batches.loader import open_split, training_batches
from resdet.data.images.decode import resized_size
from resdet.errors import UserError

# Sizes of COCO's images, (height, width) and their share, roughly as in train2017.
COCO = [((480, 640), 0.42), ((640, 480), 0.17), ((427, 640), 0.16), ((640, 427), 0.07), ((426, 640), 0.05),
    ((425, 640), 0.02), ((428, 640), 0.02), ((640, 640), 0.02), ((375, 500), 0.02), ((333, 500), 0.02),
    ((360, 640), 0.01), ((500, 375), 0.01), ((640, 359), 0.005), ((200, 640), 0.005)]  # fmt: skip
BATCH = 16


def test_the_buckets_of_the_1x_recipe() -> None:
    """By the pencil: the short side is 800; long sides from 800 to 1344 in four steps of 136, rounded up to 32."""
    assert buckets(800, 1333, 32, 10) == (
        (800, 800), (800, 960), (960, 800), (800, 1088), (1088, 800), (800, 1216), (1216, 800), (800, 1344),
        (1344, 800), (1344, 1344),
    )  # fmt: skip


@pytest.mark.parametrize("count", [4, 5, 7, 10, 12, 64])
@pytest.mark.parametrize(("short_side", "max_side", "divisor"), [
    (800, 1333, 32), (600, 1000, 1), (64, 64, 32), (64, 70, 32), (8, 8, 1), (800, 600, 32), (800, 100_000, 32),
])  # fmt: skip
def test_buckets_are_few_fit_the_divisor_and_hold_every_batch(
    count: int, short_side: int, max_side: int, divisor: int
) -> None:
    shapes = buckets(short_side, max_side, divisor, count)
    assert 1 <= len(shapes) <= count
    assert len(set(shapes)) == len(shapes)
    assert all(side % divisor == 0 for shape in shapes for side in shape)
    assert {shape[::-1] for shape in shapes} == set(shapes), "an image and the same one turned are padded alike"
    random = np.random.default_rng(0)
    for _ in range(300):
        sizes = [resized_size(*random.integers(1, 3000, 2).tolist(), short_side, max_side) for _ in range(2)]
        padded = padded_shape(sizes, divisor)
        held = bucket(padded, shapes)
        assert held[0] >= padded[0]
        assert held[1] >= padded[1]
        assert bucket(held, shapes) == held


def test_a_smaller_batch_never_has_a_larger_bucket() -> None:
    shapes = buckets(800, 1333, 32, 10)
    for height in range(32, 1345, 64):
        for width in range(32, 1345, 64):
            area = np.prod(bucket((height, width), shapes))
            assert np.prod(bucket((max(32, height - 32), width), shapes)) <= area
            assert np.prod(bucket((height, max(32, width - 32)), shapes)) <= area


@pytest.mark.parametrize("short_sides", [[800], [640, 672, 704, 736, 768, 800]])
def test_an_epoch_like_that_of_coco_has_a_dozen_shapes_at_most(short_sides: list[int]) -> None:
    """118,000 images in batches of one orientation. Without buckets there are several times as many shapes; the price
    is a few percent more pixels.
    """
    random = np.random.default_rng(0)
    weights = np.array([share for _, share in COCO])
    drawn = random.choice(len(COCO), 118_000, p=weights / weights.sum())
    sides = random.choice(short_sides, len(drawn))
    sizes = [resized_size(*COCO[kind][0], int(side), 1333) for kind, side in zip(drawn, sides, strict=True)]
    upright = np.array([height > width for height, width in sizes])
    order = [*np.flatnonzero(upright), *np.flatnonzero(~upright)]  # the batch in the middle has both
    shapes = [
        padded_shape([sizes[i] for i in order[start : start + BATCH]], 32) for start in range(0, len(order), BATCH)
    ]
    held = Counter(bucket(shape, buckets(max(short_sides), 1333, 32, 12)) for shape in shapes)
    assert len(held) <= 12
    assert len(held) <= len(set(shapes))
    pixels = sum(np.prod(shape) * count for shape, count in held.items()) / sum(np.prod(shape) for shape in shapes)
    assert 1 <= pixels < 1.1


def test_batches_of_a_loader_have_the_shapes_of_buckets_and_equal_slots() -> None:
    overrides = ["data.shape_buckets=6", "data.shapes.train_images=8", "data.augment.short_side=[48,64]"]
    config = load_config("nano", overrides=[*overrides, "data.augment.max_side=90"])
    dataset = open_split(config.data, "train")
    shapes = buckets_of(config.data.augment, size_divisor(config.model), 6)
    batches = training_batches(dataset, config, start_step=0, rank=0, world_size=1)
    seen = [next(batches).batch for _ in range(12)]
    assert {tuple(batch.images.shape[2:]) for batch in seen} <= set(shapes)
    slots = {batch.targets.labels.shape[1] for batch in seen if batch.targets is not None}
    assert slots == {8}


def test_a_list_of_transforms_makes_sizes_of_its_own() -> None:
    assert buckets_of(AugmentConfig(transforms=[]), 32, None) == ()
    with pytest.raises(UserError, match=r"data.shape_buckets=8 .* set one of them to null"):
        _ = buckets_of(AugmentConfig(transforms=[]), 32, 8)
