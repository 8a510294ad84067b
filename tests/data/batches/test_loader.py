"""Batches: the same for any number of workers, any share of processes, any starting step."""

from __future__ import annotations

import gc
import json
import multiprocessing
import multiprocessing.queues
import os
import signal
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from resdet.config import Config, load_config
from resdet.data.augment import samples
from resdet.data.batches import workers
from resdet.data.batches.loader import LoadedBatch, evaluation_batches, open_split, subset, training_batches
from resdet.data.images.transforms import PIXEL_CHANGES
from resdet.data.sets.coco import CocoDataset
from resdet.errors import UserError

IMAGES = 10
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ten images, every other one upright, with a square of known place in each but the last."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for index in range(IMAGES):
        height, width = (40, 60) if index % 2 else (60, 40)
        picture = rng.integers(0, 100, (height, width, 3), dtype=np.uint8)
        picture[10:30, 5:25] = 255
        assert cv2.imwrite(str(tmp_path / f"{index}.png"), picture)
        images.append({"id": 100 + index, "file_name": f"{index}.png", "height": height, "width": width})
        if index < IMAGES - 1:
            annotations.append({"id": index, "image_id": 100 + index, "category_id": 5, "bbox": [5, 10, 20, 20]})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 5, "name": "square"}]}
    _ = (tmp_path / "a.json").write_text(json.dumps(content))
    return tmp_path


@pytest.fixture
def config(root: Path) -> Config:
    files = [f"data.{split}.{key}={root / value}" for split in ("train", "val") for key, value in
             (("annotations", "a.json"), ("images", "."))]  # fmt: skip
    sizes = ["data.augment.short_side=[40,50]", "data.augment.test_short_side=80", "data.augment.photometric=0.5"]
    return load_config(overrides=[*files, *sizes, "data.workers=0", "train.batch_size=4", "eval.batch_size=3"])


@pytest.fixture
def dataset(config: Config) -> CocoDataset:
    return open_split(config.data, "train")


def first(
    count: int, dataset: CocoDataset, config: Config, *, start_step: int = 0, rank: int = 0, world_size: int = 1
) -> list[LoadedBatch]:
    return list(
        islice(training_batches(dataset, config, start_step=start_step, rank=rank, world_size=world_size), count)
    )


def assert_same(one: Iterable[LoadedBatch], other: Iterable[LoadedBatch]) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.images == b.images
        assert a.batch.targets is not None
        assert b.batch.targets is not None
        for left, right in zip(tensors(a), tensors(b), strict=True):
            torch.testing.assert_close(left, right, rtol=0, atol=0)


def tensors(loaded: LoadedBatch) -> list[torch.Tensor]:
    batch, targets = loaded.batch, loaded.batch.targets
    assert targets is not None
    return [batch.images, batch.sizes, targets.boxes, targets.labels, targets.crowd, targets.valid, targets.seeds]


def test_boxes_lie_on_their_squares(dataset: CocoDataset, config: Config) -> None:
    config.data.augment.photometric = 0.0
    for loaded in first(6, dataset, config):
        images, targets = loaded.batch.images, loaded.batch.targets
        assert targets is not None
        assert images.shape[2] % 32 == images.shape[3] % 32 == 0
        assert targets.boxes.shape[1] % 8 == 0
        for row, info in enumerate(loaded.images):
            height, width = loaded.batch.sizes[row].tolist()
            assert (height, width) == (round(info.height * info.scale_y), round(info.width * info.scale_x))
            assert min(height, width) in (40, 50)
            assert not images[row, :, height:].any()
            assert not images[row, :, :, width:].any()
            assert int(targets.valid[row].sum()) == (info.image_id != 100 + IMAGES - 1)
            for x1, y1, x2, y2 in targets.boxes[row][targets.valid[row]].tolist():
                inside = images[row, :, round(y1) + 2 : round(y2) - 2, round(x1) + 2 : round(x2) - 2]
                assert inside.float().mean() > 250


def test_workers_do_not_change_the_batches(dataset: CocoDataset, config: Config) -> None:
    alone = first(5, dataset, config)
    for count in (1, 2):
        config.data.workers = count
        assert_same(alone, first(5, dataset, config))


def test_a_pixel_change_of_ones_own_is_the_same_for_any_number_of_workers(
    dataset: CocoDataset, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noise(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return (image // 2 + generator.integers(0, 100, image.shape)).astype(np.uint8)

    plain = first(5, dataset, config)
    monkeypatch.setitem(PIXEL_CHANGES, "noise", noise)
    config.data.augment.extra = ["blur", "noise"]
    alone = first(5, dataset, config)
    assert not all(torch.equal(a.batch.images, b.batch.images) for a, b in zip(plain, alone, strict=True))
    for count in (1, 2):
        config.data.workers = count
        assert_same(alone, first(5, dataset, config))


def test_an_unknown_pixel_change_is_refused_before_the_first_batch(dataset: CocoDataset, config: Config) -> None:
    config.data.augment.extra = ["gray"]
    with pytest.raises(UserError, match=r"data\.augment\.extra=gray is not known; did you mean 'grey'"):
        _ = training_batches(dataset, config, start_step=0, rank=0, world_size=1)


def test_resuming_at_a_step_gives_the_batches_from_there(dataset: CocoDataset, config: Config) -> None:
    assert_same(first(7, dataset, config)[4:], first(3, dataset, config, start_step=4))


def test_two_processes_see_the_halves_of_one_batch(dataset: CocoDataset, config: Config) -> None:
    whole = first(4, dataset, config)
    halves = [first(4, dataset, config, rank=rank, world_size=2) for rank in range(2)]
    for step, loaded in enumerate(whole):
        for index, tensor in enumerate(tensors(loaded)):
            parts = [tensors(half[step])[index] for half in halves]
            torch.testing.assert_close(torch.cat(parts), tensor, rtol=0, atol=0)


def test_seeds_are_fresh_each_epoch_and_belong_to_the_sample(dataset: CocoDataset, config: Config) -> None:
    seen: set[int] = set()
    for loaded in first(6, dataset, config):  # two epochs of 10 images in 3 batches of 4
        assert loaded.batch.targets is not None
        seen |= set(loaded.batch.targets.seeds.tolist())
    assert len(seen) == 10 + 10


def test_a_batch_that_processes_cannot_share_is_an_error(dataset: CocoDataset, config: Config) -> None:
    with pytest.raises(UserError, match=r"train\.batch_size=4 .* 3 processes"):
        _ = first(1, dataset, config, world_size=3)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_shows_each_image_once_over_all_processes(
    dataset: CocoDataset, config: Config, workers: int
) -> None:
    config.data.workers = workers
    shares = [evaluation_batches(dataset, config, rank=rank, world_size=2) for rank in range(2)]
    for _ in range(2):  # again and again
        ids = [info.image_id for share in shares for loaded in share for info in loaded.images]
        assert sorted(ids) == [100 + index for index in range(IMAGES)]


def test_evaluation_resizes_by_the_true_factors(dataset: CocoDataset, config: Config) -> None:
    for loaded in evaluation_batches(dataset, config, rank=0, world_size=1):
        assert loaded.batch.targets is not None
        for row, info in enumerate(loaded.images):
            assert (info.scale_y, info.scale_x) == (2.0, 2.0)
            boxes = loaded.batch.targets.boxes[row][loaded.batch.targets.valid[row]]
            torch.testing.assert_close(boxes, torch.tensor([[10.0, 20.0, 50.0, 60.0]])[: len(boxes)])


def test_a_subset_is_the_first_images_with_objects(dataset: CocoDataset) -> None:
    assert subset(dataset, 3).image_ids.tolist() == [100, 101, 102]
    assert len(subset(dataset, 99)) == IMAGES - 1


def test_hundreds_of_objects_in_one_image_all_reach_the_model(root: Path, config: Config) -> None:
    content = json.loads((root / "a.json").read_text())
    crowded = [{"id": i, "image_id": 103, "category_id": 5, "bbox": [i % 50, i // 50, 9, 9]} for i in range(437)]
    _ = (root / "a.json").write_text(json.dumps({**content, "annotations": crowded}))
    dataset = open_split(config.data, "train")
    for loaded in first(3, dataset, config):
        assert loaded.batch.targets is not None
        rows = loaded.batch.targets.valid.sum(1).tolist()
        assert rows == [437 * (info.image_id == 103) for info in loaded.images]


NAMES = [
    "x y/ü 猫.png",
    "-rf.png",
    "new\nline.png",
    "q'\"uote.png",
    "100%d.png",
    "#1.png",
    "🐈.png",
    "[red].png",
    "A.PNG",
]


def test_images_may_be_called_anything_and_lie_behind_a_link(root: Path, config: Config) -> None:
    content = json.loads((root / "a.json").read_text())
    (root / "x y").mkdir()
    for image, name in zip(content["images"], NAMES, strict=False):
        _ = (root / image["file_name"]).rename(root / name)
        image["file_name"] = name
    _ = (root / "a.json").write_text(json.dumps(content))
    (root.parent / f"{root.name} link").symlink_to(root)
    config.data.val.images = str(root.parent / f"{root.name} link")
    names = {
        info.file_name
        for loaded in evaluation_batches(open_split(config.data, "val"), config, rank=0, world_size=1)
        for info in loaded.images
    }
    assert names == {*NAMES, "9.png"}


@pytest.fixture(autouse=True)
def no_workers_of_earlier_tests() -> None:
    """An error that pytest kept may hold the workers of its test."""
    _ = gc.collect()


def spoil(root: Path, *indices: int) -> None:
    for index in indices:
        path = root / f"{index}.png"
        _ = path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_one_clear_error_from_any_worker(
    root: Path, dataset: CocoDataset, config: Config, workers: int
) -> None:
    spoil(root, 4)
    config.data.workers = workers
    with pytest.raises(UserError, match=r"4\.png: is truncated") as error:
        _ = first(3, dataset, config)
    assert "\n" not in str(error.value)


def test_a_skipped_image_changes_neither_its_neighbours_nor_the_order(
    root: Path, dataset: CocoDataset, config: Config
) -> None:
    whole = first(3, dataset, config)
    spoil(root, 4)
    (root / "7.png").unlink()
    config.data.on_bad_image, config.data.max_bad_fraction = "skip", 0.2
    skipping = first(3, dataset, config)
    for good, loaded in zip(whole, skipping, strict=True):
        assert good.images == loaded.images
        for row, info in enumerate(loaded.images):
            bad = info.image_id in (104, 107)
            assert bool(loaded.batch.images[row].any()) != bad
            for left, right in zip(tensors(good), tensors(loaded), strict=True):
                assert bad or torch.equal(left[row], right[row])
            if bad:
                targets = loaded.batch.targets
                assert targets is not None
                assert (targets.valid[row] & targets.crowd[row]).sum() == targets.valid[row].sum() == 1
    problems = {problem for loaded in skipping for problem in loaded.unreadable.values()}
    assert len(problems) == 2


def test_too_many_broken_images_are_an_error_all_the_same(root: Path, dataset: CocoDataset, config: Config) -> None:
    spoil(root, 4, 5, 6)
    config.data.on_bad_image, config.data.max_bad_fraction = "skip", 0.2
    with pytest.raises(UserError, match=r"3 of 10 images .* data\.max_bad_fraction=0\.2"):
        _ = first(3, dataset, config)


def test_a_killed_worker_is_a_clear_error(
    dataset: CocoDataset, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.data.workers = 1
    monkeypatch.setattr(samples, "read_image", lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(UserError, match=r"a data worker \(process \d+\) was ended by SIGKILL.* data\.workers=0"):
        _ = first(1, dataset, config)


def test_a_worker_that_dies_does_not_disturb_the_work_of_the_main_process(dataset: CocoDataset, config: Config) -> None:
    """It is noticed where its batch is missing, not by an exception in the middle of an update."""
    config.data.workers = 1
    batches = training_batches(dataset, config, start_step=0, rank=0, world_size=1)
    _ = next(batches)
    (worker,) = multiprocessing.active_children()
    worker.kill()
    worker.join()  # SIGCHLD has arrived
    time.sleep(0.1)
    with pytest.raises(UserError, match="was ended by SIGKILL, perhaps because memory ran out"):
        _ = list(islice(batches, 4))  # more than the worker had prepared


def test_a_batch_that_does_not_fit_into_shared_memory_is_a_clear_error(
    dataset: CocoDataset, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, real = os.getpid(), multiprocessing.queues._ForkingPickler.dumps  # pyright: ignore

    def full(*arguments: Any) -> Any:
        if os.getpid() == main:
            return real(*arguments)
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    config.data.workers = 1
    monkeypatch.setattr("multiprocessing.queues._ForkingPickler.dumps", full)
    start = time.monotonic()
    with pytest.raises(UserError, match=r"could not pass on its batch, perhaps because shared memory is full"):
        _ = first(1, dataset, config)
    assert time.monotonic() - start < 120


def test_a_worker_that_hangs_is_a_clear_error(
    dataset: CocoDataset, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.data.workers = 1
    monkeypatch.setattr(workers, "WORKER_TIMEOUT", 1)
    monkeypatch.setattr(samples, "read_image", lambda *_, **__: signal.pause())
    with pytest.raises(UserError, match=r"no data worker has given a batch for .* data\.workers=0"):
        _ = first(1, dataset, config)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_worker_outlives_the_signals_that_ask_the_trainer_to_stop(
    dataset: CocoDataset, config: Config, number: signal.Signals
) -> None:
    config.data.workers = 1
    batches = training_batches(dataset, config, start_step=0, rank=0, world_size=1)
    _ = next(batches)
    (worker,) = multiprocessing.active_children()
    assert worker.pid
    os.kill(worker.pid, number)
    for _ in range(4):  # more than the two batches that the worker had prepared
        _ = next(batches)
    assert worker.is_alive()
    del batches
    assert not worker.is_alive()


def test_a_worker_that_hangs_does_not_keep_the_process_from_ending(
    dataset: CocoDataset, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.data.workers = 1
    monkeypatch.setattr(workers, "WORKER_TIMEOUT", 1)
    monkeypatch.setattr(samples, "read_image", lambda *_, **__: signal.pause())
    with pytest.raises(UserError, match=r"no data worker has given a batch"):
        _ = first(1, dataset, config)
    _ = gc.collect()
    assert not multiprocessing.active_children()


def test_known_sets_follow_from_the_root(tmp_path: Path) -> None:
    data = load_config(overrides=[f"data.root={tmp_path}"]).data
    with pytest.raises(UserError, match=r"coco/annotations/instances_train2017\.json .*datasets/README\.md"):
        _ = open_split(data, "train")
    data.train.name = "coco2071"
    with pytest.raises(UserError, match="did you mean 'coco2017'"):
        _ = open_split(data, "train")
    data.val.annotations = "a.json"
    with pytest.raises(UserError, match=r"data\.val\.images is not given"):
        _ = open_split(data, "val")


def test_shapes_need_no_files() -> None:
    data = load_config(overrides=["data.train.name=shapes", "data.shapes.size=64", "data.shapes.train_images=2",
                                  "data.shapes.val_images=1"]).data  # fmt: skip
    assert len(open_split(data, "train")) == 2


def test_a_training_set_needs_objects_and_a_val_set_does_not(root: Path, config: Config) -> None:
    content = json.loads((root / "a.json").read_text()) | {"annotations": []}
    _ = (root / "a.json").write_text(json.dumps(content))
    assert len(open_split(config.data, "val")) == IMAGES
    with pytest.raises(UserError, match="no image has an object"):
        _ = open_split(config.data, "train")
