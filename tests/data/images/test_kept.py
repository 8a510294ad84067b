"""Kept images are those of the decoder, bit by bit, for every way of keeping them, and damage is noticed."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from resdet.config import Config, load_config
from resdet.data.augment import samples
from resdet.data.batches.loader import LoadedBatch, open_split, training_batches
from resdet.data.images import kept
from resdet.data.images.kept import KeptImages
from resdet.errors import UserError

TRANSFORMS = "data.augment.transforms=[{mosaic: {size: 96}}, {horizontal_flip: {}}]"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESDET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/pixels"


def config(*overrides: str) -> Config:
    few = ["data.shapes.train_images=6", "data.shapes.val_images=1", "data.shapes.size=64", "train.batch_size=2"]
    return load_config("nano", overrides=[*few, "data.workers=0", *overrides])


def batches(config: Config, count: int = 9) -> list[LoadedBatch]:
    dataset = open_split(config.data, "train")
    endless = training_batches(dataset, config, start_step=0, rank=0, world_size=1)
    return list(itertools.islice(endless, count))


def assert_same(one: list[LoadedBatch], two: list[LoadedBatch]) -> None:
    for left, right in zip(one, two, strict=True):
        assert torch.equal(left.batch.images, right.batch.images)
        assert left.images == right.images


@pytest.mark.parametrize("more", [[], [TRANSFORMS]])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("where", ["ram", "disk"])
def test_batches_are_those_without_a_cache(where: str, workers: int, more: list[str]) -> None:
    """Nine batches of two are three epochs of six images; the second time the disk has all of them."""
    plain = batches(config(*more))
    for _ in range(2):
        assert_same(batches(config(f"data.cache={where}", f"data.workers={workers}", *more)), plain)


def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are decoded from now on."""
    files: list[Path] = []
    real = samples.read_image

    def counted(path: Path, *size: int, sixteen_bit: str) -> np.ndarray:
        files.append(path)
        return real(path, *size, sixteen_bit=sixteen_bit)

    monkeypatch.setattr(samples, "read_image", counted)
    return files


@pytest.mark.parametrize("where", ["ram", "disk"])
def test_each_image_is_decoded_once(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = decoded(monkeypatch)
    chosen = config(f"data.cache={where}")
    _ = batches(chosen)
    assert len(files) == len(set(files)) == 6
    _ = batches(chosen)
    assert len(files) == (6 if where == "disk" else 12)


def test_a_changed_image_is_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = config("data.cache=disk")
    _ = batches(chosen)
    dataset = open_split(chosen.data, "train")
    files = decoded(monkeypatch)
    os.utime(dataset.path(3), ns=(0, 0))
    _ = batches(chosen)
    assert files == [dataset.path(3)]


def test_damage_on_the_disk_is_noticed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = config("data.cache=disk")
    plain = batches(chosen)
    (file,) = cache.iterdir()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1  # in the pixels of the last image
    _ = file.write_bytes(data)
    files = decoded(monkeypatch)
    assert_same(batches(chosen), plain)
    assert files == [open_split(chosen.data, "train").path(5)]
    os.truncate(file, 100)
    assert_same(batches(chosen), plain)
    assert len(files) == 7


def test_what_it_takes_is_said_and_too_much_is_refused_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    for where in ("ram", "disk"):
        summary = open_split(config(f"data.cache={where}").data, "train").report.summary()
        assert f"data.cache={where}: the decoded images take up to 0.00 GB of " in summary
    monkeypatch.setattr(kept, "free_memory", lambda: 70_000)
    with pytest.raises(UserError, match=r"data\.cache=ram needs 0\.00 GB for 6 decoded images, and 0\.00 GB are free"):
        _ = open_split(config("data.cache=ram").data, "train")
    monkeypatch.setattr(kept.shutil, "disk_usage", lambda place: Usage())
    with pytest.raises(UserError, match=r"data\.cache=disk needs 0\.00 GB for 6 decoded images in .*cache/pixels"):
        _ = open_split(config("data.cache=disk").data, "train")


class Usage:
    free = 1000


def test_an_image_that_is_changed_by_its_user_stays_as_it_was(tmp_path: Path) -> None:
    heights, widths = np.array([2, 3]), np.array([4, 5])
    images = [np.full((2, 4, 3), 7, np.uint8), np.full((3, 5, 3), 9, np.uint8)]
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.touch()
    store: KeptImages = kept.in_memory(heights, widths, workers=0)
    for _ in range(2):
        for index in (0, 1):
            image = store.image(index, files[index], images[index].copy)
            assert (image == images[index]).all()
            image[:] = 0


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _ = (tmp_path / "memory.max").write_text("5000\n")
    _ = (tmp_path / "memory.current").write_text("4000\n")
    monkeypatch.setattr(kept, "CGROUP", tmp_path)
    assert kept.free_memory() == 1000
    monkeypatch.setattr(kept, "MEMINFO", tmp_path / "nothing")
    _ = (tmp_path / "memory.max").write_text("max\n")
    assert kept.free_memory() is None
