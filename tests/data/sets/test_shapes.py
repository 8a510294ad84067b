"""The generated data set: the same bytes each time, and annotations that say what is visible."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from resdet.data.sets.formats import read_set
from resdet.data.sets.shapes import CLASSES, MIN_VISIBLE, draw_scene, shapes_folder
from resdet.errors import UserError

SMALL = {"train_images": 6, "val_images": 3, "size": 64, "max_objects": 4, "seed": 0}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESDET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_parameters_give_the_same_bytes(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = digests(shapes_folder(**SMALL))
    monkeypatch.setenv("RESDET_CACHE", str(tmp_path / "other"))
    assert digests(shapes_folder(**SMALL)) == first
    assert digests(shapes_folder(**SMALL | {"seed": 1})) != first
    assert len(first) == 6 + 3 + 2


def test_a_folder_is_made_once_and_nothing_else_is_left(cache: Path) -> None:
    folder = shapes_folder(**SMALL)
    made = folder.stat().st_mtime_ns
    assert shapes_folder(**SMALL) == folder
    assert folder.stat().st_mtime_ns == made
    assert list(cache.iterdir()) == [folder]


def test_a_longer_split_begins_with_the_shorter_one(cache: Path) -> None:
    short, long = shapes_folder(**SMALL), shapes_folder(**SMALL | {"train_images": 8})
    for name in ("train/000005.jpg", "val/000002.jpg"):
        assert (short / name).read_bytes() == (long / name).read_bytes()


def test_another_process_that_was_faster_wins(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shapes_folder(**SMALL)
    monkeypatch.setattr(Path, "is_dir", lambda path, calls=[]: bool(calls) or calls.append(path) or False)
    assert shapes_folder(**SMALL) == folder
    assert list(cache.iterdir()) == [folder]


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _ = (tmp_path / "file").write_text("")
    monkeypatch.setenv("RESDET_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="RESDET_CACHE"):
        _ = shapes_folder(**SMALL)


def test_the_files_pass_our_own_checks_without_a_remark(cache: Path) -> None:
    folder = shapes_folder(**SMALL)
    for split, count in (("train", 6), ("val", 3)):
        dataset = read_set(folder / "annotations" / f"instances_{split}.json", folder / split, require_objects=True)
        assert len(dataset) == count
        assert dataset.class_names == CLASSES
        assert not dataset.report.skipped | dataset.report.skipped_masks | dataset.report.fixed
        assert dataset.segmentations.present().all()


def test_boxes_and_areas_are_those_of_the_visible_mask(cache: Path) -> None:
    content = json.loads((shapes_folder(**SMALL) / "annotations" / "instances_train.json").read_text())
    for annotation in content["annotations"]:
        mask = annotation["segmentation"]
        assert coco_mask.toBbox(mask).tolist() == annotation["bbox"]
        assert coco_mask.area(mask) == annotation["area"]


@pytest.mark.parametrize("seed", range(10))
def test_objects_do_not_overlap_where_visible_nor_hide_one_another(seed: int) -> None:
    scene = draw_scene(np.random.default_rng(seed), size=96, max_objects=8)
    assert np.sum(scene.masks, axis=0).max(initial=0) <= 1
    assert len(scene.labels) == len(scene.masks)
    assert all(mask.sum() > 20 * MIN_VISIBLE for mask in scene.masks)


def test_every_class_appears() -> None:
    scenes = [draw_scene(np.random.default_rng(seed), size=64, max_objects=6) for seed in range(40)]
    assert {label for scene in scenes for label in scene.labels} == set(range(len(CLASSES)))
