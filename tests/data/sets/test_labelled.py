"""Labelled images: CIFAR-10 is read only where it is what was published; batches are pure functions of the step."""

import hashlib
import itertools
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from resdet.data.sets.labelled import (
    LabelledImages,
    augmented,
    cifar10,
    evaluation_batches,
    shapes_patches,
    training_batches,
)
from resdet.errors import UserError

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files in CIFAR-10's format, three images each, whose checksums stand in for the published ones."""
    folder = tmp_path / "cifar10" / CIFAR10.base_folder
    folder.mkdir(parents=True)

    def write(name: str, content: dict[str, Any]) -> str:
        data = pickle.dumps(content, protocol=2)
        _ = (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    def batch(number: int) -> dict[str, Any]:
        pixels = np.zeros((3, 3072), np.uint8)
        pixels[:, :1024] = number  # a row is all of red, then green, then blue
        pixels[:, 1024:2048] = 100 + np.arange(3)[:, None]
        return {"data": pixels, "labels": [number, 0, 9]}

    files = [f"data_batch_{number}" for number in range(1, 6)]
    train_list = [[name, write(name, batch(number))] for number, name in enumerate(files, start=1)]
    monkeypatch.setattr(CIFAR10, "train_list", train_list)
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", write("test_batch", batch(7))]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": write("batches.meta", {"label_names": NAMES})}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    return tmp_path


def test_cifar_is_read_in_its_own_format(cifar: Path):
    train, test = cifar10(cifar, "train"), cifar10(cifar, "val")
    assert (len(train), len(test)) == (15, 3)
    assert train.class_names == tuple(NAMES)
    assert train.labels.tolist() == [label for number in range(1, 6) for label in (number, 0, 9)]
    assert train.images.shape == (15, 32, 32, 3)
    assert train.images[4, 5, 6].tolist() == [2, 101, 0]  # the second image of the second file
    assert "15 images of 32 pixels, 10 classes" in train.report.summary()


class Trap:
    """What unpickles makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_file_that_is_not_the_published_one_is_refused_before_it_is_unpickled(cifar: Path, name: str):
    file = cifar / "cifar10" / CIFAR10.base_folder / name
    _ = file.write_bytes(pickle.dumps(Trap(cifar / "sprung")))
    for split in ("train", "val"):
        with pytest.raises(UserError, match=f"{name} is not CIFAR-10's own") as refusal:
            _ = cifar10(cifar, split)
        assert "\n" not in str(refusal.value)
    assert not (cifar / "sprung").exists()


def test_a_flipped_bit_is_refused(cifar: Path):
    file = cifar / "cifar10" / CIFAR10.base_folder / "data_batch_1"
    data = bytearray(file.read_bytes())
    data[500] ^= 1
    _ = file.write_bytes(data)
    with pytest.raises(UserError, match="its md5 is not"):
        _ = cifar10(cifar, "train")


def test_missing_files_say_where_they_belong(tmp_path: Path):
    with pytest.raises(
        UserError, match=r"data_batch_1 is missing; unpack cifar-10-python.tar.gz \(http.*\) in .*/cifar10"
    ):
        _ = cifar10(tmp_path, "train")


@pytest.fixture(scope="module")
def patches() -> LabelledImages:
    return shapes_patches("train", count=40, size=12, seed=3)


def test_patches_are_the_same_when_they_are_drawn_again(patches: LabelledImages):
    cached = shapes_patches("train", count=40, size=12, seed=3)
    patches.annotations.unlink()
    again = shapes_patches("train", count=40, size=12, seed=3)
    for other in (cached, again):
        assert np.array_equal(other.images, patches.images)
        assert other.fingerprint == patches.fingerprint
    assert patches.images.shape == (40, 12, 12, 3)
    assert len(set(patches.labels.tolist())) == len(patches.class_names) == 8
    assert shapes_patches("train", count=20, size=12, seed=3).images.tolist() == patches.images[:20].tolist()


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut off"])
def test_a_damaged_cache_says_which_file_to_delete(content: bytes):
    file = shapes_patches("val", count=2, size=8, seed=9).annotations
    _ = file.write_bytes(content)
    with pytest.raises(UserError, match=r"patches-v1-8px-val2-seed9.npz: not readable .* delete it"):
        _ = shapes_patches("val", count=2, size=8, seed=9)
    file.unlink()


def test_splits_and_seeds_have_other_images(patches: LabelledImages):
    others = [shapes_patches("val", count=40, size=12, seed=3), shapes_patches("train", count=40, size=12, seed=4)]
    for other in others:
        assert other.fingerprint != patches.fingerprint
        assert not (patches.images == other.images).all(axis=(1, 2, 3)).any()


FILL = np.array([200, 201, 202], np.uint8)


def test_without_padding_and_flips_an_image_stays_as_it_is(patches: LabelledImages):
    seeds = np.arange(40) * 97_000_003 % 2**32
    same = augmented(patches.images, seeds, pad=0, flip=0.0, fill=FILL)
    assert np.array_equal(same, patches.images)
    mirrored = augmented(patches.images, seeds, pad=0, flip=1.0, fill=FILL)
    assert np.array_equal(mirrored, patches.images[:, :, ::-1])


def test_crops_are_the_windows_of_the_padded_image_each_as_often_and_half_of_them_flipped():
    image = np.arange(1, 13, dtype=np.uint8).reshape(1, 2, 2, 3)
    seeds = np.random.default_rng(0).integers(0, 2**32, 9000)
    crops = augmented(np.repeat(image, 9000, axis=0), seeds, pad=1, flip=0.5, fill=FILL)
    padded = np.tile(FILL, (4, 4, 1))
    padded[1:3, 1:3] = image[0]
    windows = [padded[top : top + 2, left : left + 2] for top, left in itertools.product(range(3), repeat=2)]
    counts = [
        sum(np.array_equal(crop, kind) for crop in crops)
        for window in (windows[4], windows[0], windows[2])
        for kind in (window, window[:, ::-1])
    ]
    assert sum((crops == FILL).all(axis=(1, 2, 3))) == 0  # a window of the image's size and a pad of 1 always touch it
    for count in counts:  # 500 expected of each; five standard deviations are 109
        assert abs(count - 500) < 110


def test_the_batch_of_a_step_is_a_pure_function_of_seed_and_step(patches: LabelledImages):
    options: dict[str, Any] = {"batch_size": 8, "seed": 5, "pad": 1, "flip": 0.5}
    whole = list(itertools.islice(training_batches(patches, **options), 12))
    late = list(itertools.islice(training_batches(patches, **options, start_step=7), 5))
    for first, second in zip(whole[7:], late, strict=True):
        assert torch.equal(first.batch.images, second.batch.images)
        assert first.images == second.images
    other = next(training_batches(patches, **{**options, "seed": 6}))
    assert not torch.equal(other.batch.images, whole[0].batch.images)


def test_an_epoch_has_every_image_once_and_processes_share_its_batches(patches: LabelledImages):
    options: dict[str, Any] = {"batch_size": 8, "seed": 5, "pad": 1, "flip": 0.5}
    whole = list(itertools.islice(training_batches(patches, **options), 5))
    assert sorted(info.image_id for loaded in whole for info in loaded.images) == list(range(40))
    shares = [
        list(itertools.islice(training_batches(patches, **options, rank=rank, world_size=2), 5)) for rank in (0, 1)
    ]
    for global_batch, left, right in zip(whole, *shares, strict=True):
        assert torch.equal(global_batch.batch.images, torch.cat([left.batch.images, right.batch.images]))


def test_evaluation_has_every_image_once_as_it_is(patches: LabelledImages):
    shares = [list(evaluation_batches(patches, batch_size=16, rank=rank, world_size=2)) for rank in (0, 1)]
    assert [len(loaded.images) for loaded in shares[0]] == [16, 8]
    assert [len(loaded.images) for loaded in shares[1]] == [16]
    for loaded in itertools.chain(*shares):
        for row, info in enumerate(loaded.images):
            image = loaded.batch.images[row].permute(1, 2, 0).numpy()
            assert np.array_equal(image, patches.images[info.image_id])
            assert loaded.batch.targets is not None
            assert loaded.batch.targets.labels[row].tolist() == [patches.labels[info.image_id]]
