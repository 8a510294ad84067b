"""The index of a large annotation file gives the same content as the file, and is made again when anything is odd."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layout_folders import coco_2017, csv_tables, yolo_ultralytics
from resdet.coco.reader import Annotations
from resdet.config import load_config
from resdet.data.batches.loader import open_split
from resdet.data.sets import index, sources
from resdet.data.sets.coco import CocoDataset


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every file counts as large, and every array is mapped."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("RESDET_CACHE", str(folder))
    monkeypatch.setattr(index, "SMALLEST", 0)
    monkeypatch.setattr(index, "MAPPED", 0)
    return folder / "index"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One item for each time that annotation files were parsed and checked."""
    calls: list[int] = []
    real = sources.content_of

    def counted(records: Any) -> Annotations:
        calls.append(1)
        return real(records)

    monkeypatch.setattr(sources, "content_of", counted)
    return calls


def opened(path: Path | str, *overrides: str, split: str = "train") -> CocoDataset:
    data = load_config(overrides=[f"data.path={path}", *(f"data.{override}" for override in overrides)]).data
    return open_split(data, split)


def assert_equal(one: Any, two: Any) -> None:
    """All fields, however deep."""
    if is_dataclass(one):
        for field in fields(one):
            assert_equal(getattr(one, field.name), getattr(two, field.name))
    elif isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, two)
        assert one.dtype == two.dtype
    else:
        assert one == two


def mapped(array: np.ndarray) -> bool:
    base: Any = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    return isinstance(base, mmap.mmap)


@pytest.mark.parametrize("writer", [coco_2017, yolo_ultralytics, csv_tables])
def test_an_index_is_the_content_of_the_files(writer: Callable[[Path], None], tmp_path: Path, made: list[int]) -> None:
    writer(tmp_path)
    plain = opened(tmp_path, "index=false")
    first = opened(tmp_path)
    assert len(made) == 2
    again = opened(tmp_path)
    assert len(made) == 2, "the second time nothing is parsed"
    for dataset in (first, again):
        assert_equal(dataset, plain)
        assert mapped(dataset.content.given)
        assert mapped(dataset.segmentations.polygon_rows)


def test_each_choice_of_classes_has_its_index(tmp_path: Path, cache: Path, made: list[int]) -> None:
    yolo_ultralytics(tmp_path)
    for _ in range(2):
        assert opened(tmp_path, "classes=wasp").class_names == ("wasp",)
        assert opened(tmp_path, "rename={bee: hornet}").class_names == ("hornet", "wasp")
        assert opened(tmp_path).class_names == ("bee", "wasp")
    assert (len(made), len([entry for entry in cache.iterdir() if entry.is_dir()])) == (3, 3)


def test_a_changed_file_is_read_again_and_its_index_replaced(tmp_path: Path, cache: Path, made: list[int]) -> None:
    coco_2017(tmp_path)
    count = len(opened(tmp_path).boxes)
    file = tmp_path / "annotations/instances_train2017.json"
    content = json.loads(file.read_text())
    content["annotations"].pop()
    _ = file.write_text(json.dumps(content))
    assert len(opened(tmp_path).boxes) == count - 1
    assert len(made) == 2
    os.utime(file, ns=(0, 0))  # the same size at another time
    assert len(opened(tmp_path).boxes) == count - 1
    assert len(made) == 3
    assert len([entry for entry in cache.iterdir() if entry.is_dir()]) == 1


class Armed:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("an index ran code",))


def flipped(folder: Path) -> None:
    data = bytearray((folder / "boxes.npy").read_bytes())
    data[-1] ^= 1
    _ = (folder / "boxes.npy").write_bytes(data)


def cut(folder: Path) -> None:
    os.truncate(folder / "boxes.npy", 130)


def with_code(folder: Path) -> None:
    np.save(folder / "boxes.npy", np.array([Armed()], dtype=object), allow_pickle=True)


def of_another(folder: Path) -> None:
    description = json.loads((folder / "index.json").read_text())
    description["state"][0] = "index 0"
    _ = (folder / "index.json").write_text(json.dumps(description))


def without_a_description(folder: Path) -> None:
    _ = (folder / "index.json").write_bytes(b"\xff{")


def without_an_array(folder: Path) -> None:
    (folder / "labels.npy").unlink()


def of_other_dimensions(folder: Path) -> None:
    np.save(folder / "boxes.npy", np.load(folder / "boxes.npy").astype(np.float32))


@pytest.mark.parametrize(
    "damage", [flipped, cut, with_code, of_another, without_a_description, without_an_array, of_other_dimensions]
)
def test_a_damaged_or_foreign_index_is_made_again(
    damage: Callable[[Path], None], tmp_path: Path, cache: Path, made: list[int]
) -> None:
    coco_2017(tmp_path)
    plain = opened(tmp_path, "index=false")
    del plain
    _ = opened(tmp_path)
    (folder,) = (entry for entry in cache.iterdir() if entry.is_dir())
    damage(folder)
    again = opened(tmp_path)
    assert len(made) == 3
    assert_equal(again, opened(tmp_path, "index=false"))
    _ = opened(tmp_path)
    assert len(made) == 4, "the index is whole again"


def test_a_cache_that_cannot_be_written_is_said_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: list[int]
) -> None:
    coco_2017(tmp_path)
    monkeypatch.setenv("RESDET_CACHE", "/dev/null/cache")
    dataset = opened(tmp_path)
    assert "not kept for later runs: /dev/null/cache/index/instances_train2017" in dataset.report.summary()
    assert len(made) == 1


def test_without_an_index_nothing_is_written(tmp_path: Path, cache: Path) -> None:
    coco_2017(tmp_path)
    _ = opened(tmp_path, "index=false")
    assert not cache.exists()


def test_a_small_file_needs_no_index(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "SMALLEST", 2**20)
    coco_2017(tmp_path)
    _ = opened(tmp_path)
    assert not cache.exists()
