"""Masks in the frames of their boxes: exact shares of cells, and on their objects through resize and flip."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as pycocotools_mask

from resdet.config import Config, load_config
from resdet.data.batches.loader import evaluation_batches, open_split, training_batches
from resdet.data.images.masks import box_frame_masks
from resdet.data.sets.coco import CocoDataset
from resdet.data.sets.formats import read_set
from resdet.ops.pasting import paste_masks

coco_mask: Any = pycocotools_mask  # its annotations refuse polygons
DATA = Path(__file__).resolve().parents[3] / "../shared/data"
HEIGHT, WIDTH = 30, 40


def dataset_of(folder: Path, annotations: list[dict[str, Any]]) -> CocoDataset:
    """One image of 30 x 40 pixels with these annotations, white wherever the first of them has its mask."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[10:20, 4:12] = 255
    assert cv2.imwrite(str(folder / "a.png"), image)
    common = {"image_id": 1, "category_id": 1}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
        "annotations": [{"id": number} | common | entry for number, entry in enumerate(annotations, start=1)],
        "categories": [{"id": 1, "name": "thing"}],
    }
    _ = (folder / "a.json").write_text(json.dumps(content))
    return read_set(folder / "a.json", folder)


def encoded(dataset: CocoDataset, frames: list[list[float]], resolution: int) -> np.ndarray:
    rows = np.arange(len(dataset.boxes))
    return box_frame_masks(
        dataset.segmentations, rows, np.array(frames, np.float64), height=HEIGHT, width=WIDTH, resolution=resolution
    )


SQUARE = {"bbox": [4, 10, 8, 10], "segmentation": [[4, 10, 12, 10, 12, 20, 4, 20]]}
RUNS = {"size": [HEIGHT, WIDTH], "counts": [4 * HEIGHT + 10, *[10, 20] * 7, 10, HEIGHT * 28 + 10]}  # the same pixels


@pytest.mark.parametrize("segmentation", [SQUARE["segmentation"], RUNS], ids=["polygon", "runs"])
def test_a_cell_holds_the_share_that_is_covered(tmp_path: Path, segmentation: Any) -> None:
    """A rectangle over columns 4 to 12 and rows 10 to 20, in cells of 3 x 5 pixels from (0, 10) on."""
    dataset = dataset_of(tmp_path, [{"bbox": [0, 10, 12, 20], "segmentation": segmentation}])
    mask = encoded(dataset, [[0, 10, 12, 30]], 4)[0]
    row = [0, 255 * 2 / 3, 255, 255]  # the second cell is columns 3 to 6
    np.testing.assert_array_equal(mask, np.round([row, row, [0] * 4, [0] * 4]))


def test_fractional_frames_cut_cells_exactly(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, [SQUARE])
    mask = encoded(dataset, [[3.5, 9.75, 5.5, 10.75]], 2)[0]  # cells of 1 x 0.5 pixels
    np.testing.assert_array_equal(mask, np.round(255 * np.outer([0.5, 1], [0.5, 1])))


def test_a_frame_from_right_to_left_mirrors(tmp_path: Path) -> None:
    triangle = {"bbox": [4, 5, 20, 20], "segmentation": [[4, 5, 24, 5, 4, 25]]}
    dataset = dataset_of(tmp_path, [triangle])
    there, back = encoded(dataset, [[4, 5, 24, 25]], 7), encoded(dataset, [[24, 5, 4, 25]], 7)
    np.testing.assert_array_equal(back, there[:, :, ::-1])
    assert there[0, 0, 0] > 200 > there[0, 0, -1]


def test_what_lies_outside_the_image_is_not_covered(tmp_path: Path) -> None:
    mask = encoded(dataset_of(tmp_path, [SQUARE]), [[-8, 10, 12, 20]], 5)[0]  # cells four pixels wide
    np.testing.assert_array_equal(mask, [[0, 0, 0, 255, 255]] * 5)


def test_parts_of_one_object_are_one_mask_and_no_mask_is_zeros(tmp_path: Path) -> None:
    parts = {"bbox": [0, 0, 12, 4], "segmentation": [[0, 0, 4, 0, 4, 4, 0, 4], [8, 0, 12, 0, 12, 4, 8, 4]]}
    dataset = dataset_of(tmp_path, [parts, {"bbox": [0, 0, 12, 4]}])
    masks = encoded(dataset, [[0, 0, 12, 4]] * 2, 3)
    np.testing.assert_array_equal(masks[0], [[255, 0, 255]] * 3)
    assert not masks[1].any()


@pytest.fixture
def config() -> Config:
    sizes = ["data.augment.short_side=[60]", "data.workers=0", "train.batch_size=1", "data.mask_resolution=8"]
    return load_config(overrides=[*sizes, "data.augment.flip=0.5", "model.mask_head.name=fcn"])


def test_masks_stay_on_their_objects_through_resize_and_flip(tmp_path: Path, config: Config) -> None:
    """The mask, cell by cell, is what the image shows at the cell's centre."""
    loose = {"bbox": [0, 5, 20, 20], "segmentation": SQUARE["segmentation"]}
    crowd = {"bbox": [0, 0, 40, 30], "iscrowd": 1, "segmentation": RUNS}
    dataset = dataset_of(tmp_path, [loose, crowd, SQUARE])
    batches = training_batches(dataset, config, start_step=0, rank=0, world_size=1)
    flipped: set[bool] = set()
    for _ in range(12):
        batch = next(batches).batch
        targets = batch.targets
        assert targets is not None
        assert targets.masks is not None
        assert targets.masks.shape == (1, 8, 8, 8)
        flipped.add(bool(targets.boxes[0, 0, 0] > 30))
        x1, y1, x2, y2 = targets.boxes[0, 0].tolist()
        at = (np.arange(8) + 0.5) / 8
        rows, columns = (y1 + at * (y2 - y1)).astype(int), (x1 + at * (x2 - x1)).astype(int)
        shown = batch.images[0, 0].numpy()[np.ix_(rows, columns)]
        np.testing.assert_array_equal(targets.masks[0, 0].numpy() > 127, shown > 127)
        assert not targets.masks[0, 1].any()
        assert targets.crowd[0].tolist() == [False, True] + [False] * 6
        assert (targets.masks[0, 2] == 255).all()
        assert not targets.masks[0, 3:].any()
    assert flipped == {False, True}


def test_only_a_detector_of_masks_gets_them_and_only_to_learn_from(tmp_path: Path, config: Config) -> None:
    dataset = dataset_of(tmp_path, [SQUARE])
    (loaded,) = evaluation_batches(dataset, config, rank=0, world_size=1)
    assert loaded.batch.targets is not None
    assert loaded.batch.targets.masks is None
    config.model.mask_head = None
    targets = next(training_batches(dataset, config, start_step=0, rank=0, world_size=1)).batch.targets
    assert targets is not None
    assert targets.masks is None


def test_workers_and_restarts_do_not_change_masks() -> None:
    overrides = ["data.train.name=shapes", "data.shapes.size=64", "data.shapes.train_images=6", "train.batch_size=2",
                 "data.shapes.val_images=1", "model.mask_head.name=fcn", "data.augment.short_side=[64]"]  # fmt: skip
    config = load_config(overrides=[*overrides, "data.workers=0"])
    dataset = open_split(config.data, "train")
    alone = training_batches(dataset, config, start_step=0, rank=0, world_size=1)
    _ = next(alone), next(alone)
    config.data.workers = 1
    resumed = training_batches(dataset, config, start_step=2, rank=0, world_size=1)
    for _ in range(2):
        one, other = next(alone).batch.targets, next(resumed).batch.targets
        assert one is not None
        assert other is not None
        torch.testing.assert_close(one.masks, other.masks, rtol=0, atol=0)


def exact_masks(dataset: CocoDataset, index: int, rows: np.ndarray) -> np.ndarray:
    """All pixels of an image for each annotation, as pycocotools has them."""
    height, width = int(dataset.heights[index]), int(dataset.widths[index])
    encoded = []
    for row in rows.tolist():
        polygons = [polygon.ravel().tolist() for polygon in dataset.segmentations.polygons(row)]
        runs = {"size": [height, width], "counts": dataset.segmentations.run_lengths(row).tolist()}
        encoded.append(
            coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
            if polygons
            else coco_mask.frPyObjects(runs, height, width)
        )
    return np.moveaxis(coco_mask.decode(encoded), 2, 0) > 0


def opened(name: str, split: str) -> CocoDataset:
    folder = DATA / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    return read_set(folder / f"annotations/instances_{split}.json", folder / split)


def objects_of(dataset: CocoDataset, index: int, most: int) -> np.ndarray:
    """Annotations of an image that are not crowd and have a mask."""
    rows = np.arange(dataset.offsets[index], dataset.offsets[index + 1])
    return rows[~dataset.crowd[rows] & dataset.segmentations.present()[rows]][:most]


def mean_iou(dataset: CocoDataset, resolution: int, *, step: int = 1, most: int = 1000) -> tuple[float, int, float]:
    """Of masks that went through B x B cells of their boxes and were pasted back; how many, and seconds for each."""
    overlaps: list[np.ndarray] = []
    seconds = 0.0
    for index in range(0, len(dataset), step):
        rows = objects_of(dataset, index, most)
        if not len(rows):
            continue
        height, width = int(dataset.heights[index]), int(dataset.widths[index])
        boxes, start = dataset.boxes[rows], time.process_time()
        cells = box_frame_masks(dataset.segmentations, rows, boxes, height=height, width=width, resolution=resolution)
        seconds += time.process_time() - start
        pasted = paste_masks(cells / np.float32(255), boxes, height, width)
        exact = exact_masks(dataset, index, rows)
        overlaps.append((pasted & exact).sum((1, 2)) / (pasted | exact).sum((1, 2)))
    values = np.concatenate(overlaps)
    return float(values.mean()), len(values), seconds / len(values)


@pytest.mark.realdata
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
@pytest.mark.parametrize(("name", "least"), [("coco-mini", 0.997), ("nuclei", 0.999)])
def test_the_default_resolution_keeps_masks(name: str, least: float) -> None:
    iou, _, _ = mean_iou(opened(name, "val"), Config().data.mask_resolution, step=4, most=15)
    assert iou >= least


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
@pytest.mark.parametrize("resolution", [28, 56, 64, 112])
@pytest.mark.parametrize("name", ["coco-mini", "nuclei"])
def test_masks_lose_little_in_their_cells(name: str, resolution: int, capsys: pytest.CaptureFixture[str]) -> None:
    iou, count, seconds = mean_iou(opened(name, "train"), resolution)
    with capsys.disabled():
        print(
            f"\n{name} train, B = {resolution}: mean IoU {iou:.4f} of {count} masks, {resolution**2} bytes and"
            f" {seconds * 1e6:.0f} us each"
        )
    assert iou >= 0.97
