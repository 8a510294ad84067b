"""Samplers show images as often as their rule says, by pure functions of seed and step; no copy is shown twice."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layout_folders import picture, text
from resdet.config import Config, load_config
from resdet.data.batches.draws import expected_draws
from resdet.data.batches.loader import open_split, training_batches
from resdet.data.batches.samplers import BatchOrder, rank_slice
from resdet.data.sets.coco import CocoDataset
from resdet.data.sets.formats import read_set
from resdet.errors import UserError

NANO = Path(__file__).parents[3] / "configs/nano.yaml"


def dataset(root: Path, classes: list[list[int]], crowd: frozenset[int] = frozenset()) -> CocoDataset:
    """Images with one object of each of the given classes (1 to 3)."""
    annotations: list[dict[str, Any]] = [
        {"image_id": image, "category_id": label, "bbox": [1, 1, 20, 20], "iscrowd": int(image in crowd)}
        for image, labels in enumerate(classes, start=1)
        for label in labels
    ]
    content = {
        "images": [
            {"id": image, "file_name": f"{image}.png", "width": 32, "height": 32}
            for image in range(1, len(classes) + 1)
        ],
        "annotations": [{"id": number, **record} for number, record in enumerate(annotations, start=1)],
        "categories": [{"id": number, "name": f"c{number}"} for number in (1, 2, 3)],
    }
    text(root / "a.json", json.dumps(content))
    for image in range(1, len(classes) + 1):
        picture(root / f"{image}.png", (32, 32))
    return read_set(root / "a.json", root)


def config(*overrides: str) -> Config:
    return load_config(NANO, overrides=[f"data.{override}" for override in overrides])


def draws(data: CocoDataset, *overrides: str) -> list[float]:
    expected = expected_draws(data, config(*overrides).data)
    assert expected is not None
    return expected.tolist()


def test_repeat_factors_are_those_of_a_pencil(tmp_path: Path) -> None:
    """Of 8 images class 1 is in 8, class 2 in 2, class 3 in none; t = 1: sqrt(1 / 0.25) = 2 for the two images."""
    data = dataset(tmp_path, [[1, 2], [1, 2], [1], [1], [1], [1], [1], [1]])
    assert draws(data, "sampler=repeat_factor", "sampler_threshold=1") == pytest.approx([2, 2, 1, 1, 1, 1, 1, 1])
    assert draws(data, "sampler=repeat_factor", "sampler_threshold=0.25") == pytest.approx([1] * 8)
    half = draws(data, "sampler=repeat_factor", "sampler_threshold=0.5")  # sqrt(2): 8.83 becomes 9
    assert half == pytest.approx([2**0.5 * 9 / (6 + 2 * 2**0.5)] * 2 + [9 / (6 + 2 * 2**0.5)] * 6)


def test_class_aware_shows_every_class_alike(tmp_path: Path) -> None:
    """Class 1 has three images, class 2 one, class 3 none, and one image is empty: 5 draws, half of them by class 2."""
    data = dataset(tmp_path, [[1], [1], [1], [2], []])
    assert draws(data, "sampler=class_aware") == pytest.approx([5 / 6, 5 / 6, 5 / 6, 5 / 2, 0])


def test_crowd_regions_do_not_count_as_a_class(tmp_path: Path) -> None:
    data = dataset(tmp_path, [[1], [2], [2]], crowd=frozenset({3}))
    assert draws(data, "sampler=class_aware") == pytest.approx([1.5, 1.5, 0])


def test_weights_come_from_a_table(tmp_path: Path) -> None:
    data = dataset(tmp_path, [[1], [1], [1], [1]])
    text(tmp_path / "w.csv", "image,weight\n1.png,5\n3.png,0\n")
    assert draws(data, "sampler=weighted", f"sampler_weights={tmp_path}/w.csv") == pytest.approx(
        [20 / 7, 4 / 7, 0, 4 / 7]
    )


TABLES = {
    "1.png,5\n": "the first line is '1.png,5'; write a csv with the header image,weight",
    "image,weight\nz.png,5\n": "line 2: 'z.png,5' names no image",
    "image,weight\n1.png\n": "line 2: '1.png' names no image",
    "image,weight\n1.png,-1\n": "line 2: the weight is '-1'",
    "image,weight\n1.png,nan\n": "line 2: the weight is 'nan'",
    "image,weight\n1.png,0\n2.png,0\n": "every image has the weight 0",
}


@pytest.mark.parametrize(("table", "problem"), TABLES.items())
def test_a_table_of_weights_that_does_not_fit_is_named(tmp_path: Path, table: str, problem: str) -> None:
    data = dataset(tmp_path, [[1], [1]])
    text(tmp_path / "w.csv", table)
    with pytest.raises(UserError, match=problem) as caught:
        _ = draws(data, "sampler=weighted", f"sampler_weights={tmp_path}/w.csv")
    assert str(caught.value).startswith(str(tmp_path / "w.csv"))


def test_a_sampler_that_does_not_fit_is_refused_when_the_data_are_opened(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.sampler=weighted needs data\.sampler_weights"):
        _ = open_split(config("sampler=weighted").data, "train")
    with pytest.raises(UserError, match=r"set data\.sampler=weighted too"):
        _ = open_split(config("sampler_weights=w.csv").data, "train")
    with pytest.raises(UserError, match="did you mean 'weighted'"):
        _ = config("sampler=weighte")


def order(expected: list[float], batch_size: int = 4, seed: int = 0) -> BatchOrder:
    weights = np.array(expected)
    return BatchOrder(
        np.arange(len(expected)) % 3 // 2, batch_size, seed, weights * (round(sum(expected)) / sum(expected))
    )


EXPECTED = st.lists(st.floats(0.1, 5), min_size=1, max_size=30).filter(lambda values: sum(values) >= 1)


@settings(max_examples=60, deadline=None)
@given(expected=EXPECTED, epoch=st.integers(0, 1000), seed=st.integers(0, 2**32 - 1))
def test_an_epoch_shows_an_image_as_often_as_expected_rounded_down_or_up(
    expected: list[float], epoch: int, seed: int
) -> None:
    batches = order(expected, 1, seed)
    keys = batches.epoch(epoch).ravel()
    assert len(keys) == batches.images_per_epoch == round(sum(expected))
    assert len(set(keys.tolist())) == len(keys)  # every copy has a key, and so a randomness, of its own
    counts = np.bincount(keys % len(expected), minlength=len(expected))
    assert batches.expected is not None
    assert (np.abs(counts - batches.expected) < 1 + 1e-9).all()
    for image, count in enumerate(counts.tolist()):
        own = sorted(key // len(expected) for key in keys.tolist() if key % len(expected) == image)
        assert own == list(range(count))


def test_frequencies_over_many_epochs_are_the_expected_ones() -> None:
    """The mean of 4000 draws of a rounding with variance p (1 - p) <= 1/4 is within 5 deviations, 0.04, of it."""
    batches = order([1.0, 1.5, 2.25, 0.25, 1.0])
    assert batches.expected is not None
    counts = sum(np.bincount(order_of(batches, epoch) % 5, minlength=5) for epoch in range(4000))
    np.testing.assert_allclose(np.asarray(counts) / 4000, batches.expected, rtol=0, atol=0.04)


def order_of(batches: BatchOrder, epoch: int) -> np.ndarray:
    """The epoch without the images that fill its last batch."""
    return np.unique(batches.epoch(epoch).ravel())


@pytest.mark.parametrize("step", [0, 1, 3, 7, 19])
def test_starting_at_a_step_continues_the_same_sequence(step: int) -> None:
    batches = order([1.0, 1.5, 2.25, 0.25, 1.0, 3.0])
    whole = [(epoch, keys.tolist()) for epoch, keys in islice(batches.from_step(0), 30)]
    assert [(epoch, keys.tolist()) for epoch, keys in islice(batches.from_step(step), 30 - step)] == whole[step:]


def test_processes_share_a_global_batch_without_a_key_twice() -> None:
    batches = order([1.0, 1.5, 2.25, 0.25, 1.0, 3.0] * 4)
    for _, batch in islice(batches.from_step(0), batches.batches_per_epoch):
        shares = [rank_slice(batch, rank, 2).tolist() for rank in range(2)]
        assert [*shares[0], *shares[1]] == batch.tolist()
        assert len(set(batch.tolist())) == len(batch)


def test_batches_hold_one_orientation_but_for_the_leftovers() -> None:
    batches = order([1.0, 1.5, 2.25, 0.5, 1.0, 3.0] * 10)
    groups = [set(batches.groups[keys % len(batches.groups)].tolist()) for keys in batches.epoch(3)]
    assert sum(len(group) > 1 for group in groups) <= 1


def test_copies_of_an_image_in_a_batch_are_augmented_each_in_its_own_way(tmp_path: Path) -> None:
    data = dataset(tmp_path, [[1], [2]])
    text(tmp_path / "w.csv", "image,weight\n1.png,0\n")
    chosen = config("sampler=weighted", f"sampler_weights={tmp_path}/w.csv", "augment.flip=0.5")
    chosen.train.batch_size = 2
    (loaded,) = islice(training_batches(data, chosen, start_step=0, rank=0, world_size=1), 1)
    assert [image.image_id for image in loaded.images] == [2, 2]
    assert loaded.batch.targets is not None
    assert len(set(loaded.batch.targets.seeds.tolist())) == 2


@pytest.mark.parametrize("sampler", ["repeat_factor", "class_aware"])
def test_a_batch_is_the_same_after_a_resume_and_over_processes(tmp_path: Path, sampler: str) -> None:
    data = dataset(tmp_path, [[1], [1], [1], [2], [], [1, 3]])
    chosen = config(f"sampler={sampler}", "sampler_threshold=1")

    def batches(start: int, rank: int = 0, size: int = 1) -> list[list[tuple[int, int]]]:
        loaded = islice(training_batches(data, chosen, start_step=start, rank=rank, world_size=size), 8 - start)
        return [
            [(i.image_id, int(s)) for i, s in zip(b.images, b.batch.targets.seeds, strict=True)]  # pyright: ignore
            for b in loaded
        ]

    whole = batches(0)
    assert batches(3) == whole[3:]
    shares = zip(batches(0, 0, 2), batches(0, 1, 2), strict=True)
    assert [first + second for first, second in shares] == whole
