"""Masks in the frame of one box, seen through another: by pencil, by laws, and against RoIAlign on whole images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as pycocotools_mask
from torch import Tensor
from torch.testing import assert_close
from torchvision.models.detection.roi_heads import project_masks_on_boxes
from torchvision.ops import roi_align

from resdet.data.images.masks import box_frame_masks
from resdet.data.sets.coco import CocoDataset
from resdet.data.sets.formats import read_set
from resdet.ops.masks import coverage, crop_masks

coco_mask: Any = pycocotools_mask  # its annotations refuse polygons
DATA = Path(__file__).resolve().parents[2] / "../shared/data"
FRAME = (10.0, 20.0, 50.0, 60.0)  # 40 x 40 pixels
LEFT_HALF = torch.tensor([[255, 255, 0, 0]] * 4, dtype=torch.uint8)


def seen(mask: Tensor, frame: tuple[float, ...], box: tuple[float, ...], resolution: int) -> Tensor:
    """One mask through one box."""
    return coverage(*one(mask, frame, box), resolution)[0, 0]


def cropped(mask: Tensor, frame: tuple[float, ...], box: tuple[float, ...], resolution: int) -> Tensor:
    return crop_masks(*one(mask, frame, box), resolution)[0, 0]


def one(mask: Tensor, frame: tuple[float, ...], box: tuple[float, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return mask[None, None], torch.tensor([[frame]]), torch.zeros(1, 1, dtype=torch.int64), torch.tensor([[box]])


def test_through_its_own_frame_a_mask_is_itself() -> None:
    mask = torch.randint(0, 256, (7, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert_close(seen(mask, FRAME, FRAME, 7), mask / 255)


def test_coarser_cells_hold_the_mean_of_the_finer_ones() -> None:
    mask = torch.tensor([[255, 0, 0, 0], [255, 255, 0, 0], [0, 0, 0, 51], [0, 0, 51, 102]], dtype=torch.uint8)
    assert_close(seen(mask, FRAME, FRAME, 2), torch.tensor([[0.75, 0.0], [0.0, 0.2]]))


def test_finer_cells_repeat_the_coarser_one_they_lie_in() -> None:
    mask = torch.tensor([[255, 0], [0, 255]], dtype=torch.uint8)
    assert_close(seen(mask, FRAME, FRAME, 4), torch.eye(2).repeat_interleave(2, 0).repeat_interleave(2, 1))


def test_rows_are_y_and_columns_are_x() -> None:
    # The left half of the frame; the box is its left quarter and as much again to the left of it, full height.
    assert_close(
        seen(LEFT_HALF, FRAME, (0.0, 20.0, 20.0, 60.0), 2), torch.tensor([[0.0, 1.0], [0.0, 1.0]]), atol=1e-6, rtol=0
    )
    # Transposed: the upper half of the frame, and a box that reaches as far above it.
    assert_close(
        seen(LEFT_HALF.mT, FRAME, (10.0, 10.0, 50.0, 30.0), 2), torch.tensor([[0.0, 0], [1, 1]]), atol=1e-6, rtol=0
    )


def test_outside_its_frame_there_is_nothing_of_an_object() -> None:
    full = torch.full((4, 4), 255, dtype=torch.uint8)
    assert not seen(full, FRAME, (60.0, 20.0, 100.0, 60.0), 5).any()
    # Twice as wide and high about the same centre: the middle of four by four cells, and nothing around.
    wanted = torch.zeros(4, 4)
    wanted[1:3, 1:3] = 1
    assert_close(seen(full, FRAME, (-10.0, 0.0, 70.0, 80.0), 4), wanted, atol=1e-6, rtol=0)


def test_half_covered_is_covered_and_less_is_not() -> None:
    # Columns of 40 / 3 pixels over a left half of 20: the middle one is covered by half, up to rounding.
    assert cropped(LEFT_HALF, FRAME, FRAME, 3).tolist() == [[True, True, False]] * 3
    for value, inside in ((127, False), (128, True)):
        assert cropped(torch.full((4, 4), value, dtype=torch.uint8), FRAME, FRAME, 2).all() == inside


def test_moving_and_stretching_frame_and_box_alike_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(1)
    mask = torch.randint(0, 256, (9, 9), dtype=torch.uint8, generator=generator)
    box = (4.0, 25.0, 47.0, 71.0)
    moved = [tuple(2.0 * side + (100.0, 7.0)[i % 2] for i, side in enumerate(sides)) for sides in (FRAME, box)]
    assert_close(seen(mask, moved[0], moved[1], 6), seen(mask, FRAME, box, 6), atol=1e-5, rtol=0)


def test_each_box_looks_at_its_own_image_and_object() -> None:
    masks = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    masks[0, 2], masks[1, 0] = 255, 128
    index = torch.tensor([[2, 0], [0, 1]])
    frames = torch.tensor(FRAME).expand(2, 2, 4)
    means = coverage(masks, frames, index, frames, 3).mean((2, 3))
    assert_close(means, torch.tensor([[1.0, 0.0], [128 / 255, 0.0]]))


def test_empty_boxes_give_finite_numbers() -> None:
    full = torch.full((4, 4), 255, dtype=torch.uint8)
    for frame, box in (
        (FRAME, (0.0,) * 4),
        ((0.0,) * 4, FRAME),
        ((0.0,) * 4, (0.0,) * 4),
        (FRAME, (30.0, 40.0, 30.0, 40.0)),
    ):
        assert seen(full, frame, box, 3).isfinite().all()


def test_lower_precision_of_autocast_is_not_for_masks() -> None:
    mask = torch.randint(0, 256, (9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    box = (4.0, 25.0, 47.0, 71.0)
    with torch.autocast("cpu", torch.bfloat16):
        under = seen(mask, FRAME, box, 6)
    assert_close(under, seen(mask, FRAME, box, 6), atol=0, rtol=0)


def ellipse(height: int, width: int, frame: tuple[float, ...], cells: int) -> tuple[Tensor, Tensor]:
    """An ellipse that fills a frame: as the pixels of an image, and as the coverage of the frame's cells."""
    x1, y1, x2, y2 = frame
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    image = ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 <= 1
    fine = (torch.arange(cells * 16) + 0.5) / (cells * 16) * 2 - 1
    inside = (fine[:, None] ** 2 + fine[None] ** 2 <= 1).float()
    return image, (torch.nn.functional.avg_pool2d(inside[None], 16)[0] * 255).round().to(torch.uint8)


@pytest.mark.parametrize("resolution", [14, 28])
def test_targets_are_those_of_detectron2_on_the_whole_image(resolution: int) -> None:
    """Detectron2 crops the image's pixels by RoIAlign (aligned, adaptive) and cuts at 0.5.

    Cells at the object's edge may differ, where that one samples pixels and ours knows the share of the cell: in at
    most 0.6 % of the cells.
    """
    frame = (30.0, 25.0, 158.0, 121.0)
    image, mask = ellipse(150, 200, frame, 64)
    generator = torch.Generator().manual_seed(3)
    wrong = []
    for _ in range(20):
        box = torch.tensor(frame) + 12 * torch.randn(4, generator=generator)
        theirs = roi_align(image[None, None].float(), [box[None]], resolution, 1.0, 0, True)[0, 0] >= 0.5
        ours = cropped(mask, frame, tuple(box.tolist()), resolution)
        wrong.append((ours != theirs).float().mean())
    assert max(wrong) <= 0.006


def test_coverage_is_what_torchvision_projects_onto_boxes() -> None:
    """Without the half-pixel correction theirs lies half a pixel to the right and below: the boxes are moved by that.

    With a whole number of pixels in each cell its samples miss no pixel, so the two agree but for the interpolation at
    the object's edge, which spreads over one pixel of the four that a cell is wide.
    """
    frame = (32.0, 24.0, 144.0, 136.0)
    image, mask = ellipse(160, 176, frame, 112)  # a cell is a pixel
    box = torch.tensor([[24.0, 32.0, 136.0, 144.0]])
    theirs = project_masks_on_boxes(image[None].to(torch.uint8), box - 0.5, torch.zeros(1, dtype=torch.int64), 28)[0]
    ours = seen(mask, frame, tuple(box[0].tolist()), 28)
    assert_close(ours.mean(), theirs.mean(), atol=1e-3, rtol=0)
    assert_close(ours, theirs, atol=0.03, rtol=0)


def whole_masks(dataset: CocoDataset, index: int, rows: np.ndarray) -> Tensor:
    """All pixels of an image for each annotation, as pycocotools has them."""
    height, width = int(dataset.heights[index]), int(dataset.widths[index])
    encoded = []
    for row in rows.tolist():
        polygons = [polygon.ravel().tolist() for polygon in dataset.segmentations.polygons(row)]
        runs = {"size": [height, width], "counts": dataset.segmentations.run_lengths(row).tolist()}
        objects = coco_mask.frPyObjects(polygons or runs, height, width)
        encoded.append(coco_mask.merge(objects) if polygons else objects)
    return torch.from_numpy(np.moveaxis(coco_mask.decode(encoded), 2, 0).astype(np.float32))


def differences(dataset: CocoDataset, resolution: int, cells: int) -> Tensor:
    """For each object of a data set, the share of its target's cells in which Detectron2's target is another one.

    The regions are the objects' boxes, each side moved by 8 % of it (one standard deviation).
    """
    generator, shares = torch.Generator().manual_seed(0), []
    for index in range(len(dataset)):
        rows = np.arange(dataset.offsets[index], dataset.offsets[index + 1])
        rows = rows[~dataset.crowd[rows] & dataset.segmentations.present()[rows]]
        if not len(rows):
            continue
        frames = torch.from_numpy(dataset.boxes[rows]).float()
        sides = (frames[:, 2:] - frames[:, :2]).repeat(1, 2)
        boxes = frames + 0.08 * sides * torch.randn(frames.shape, generator=generator)
        whole = whole_masks(dataset, index, rows)
        numbers = torch.arange(len(rows))
        regions = torch.cat([numbers[:, None].float(), boxes], dim=1)
        theirs = roi_align(whole[:, None], regions, resolution, 1.0, 0, True)[:, 0] >= 0.5
        height, width = whole.shape[1:]
        kept = box_frame_masks(
            dataset.segmentations, rows, dataset.boxes[rows], height=height, width=width, resolution=cells
        )
        ours = crop_masks(torch.from_numpy(kept)[None], frames[None], numbers[None], boxes[None], resolution)[0]
        shares.append((ours != theirs).float().mean((1, 2)))
    return torch.cat(shares)


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
@pytest.mark.parametrize(("resolution", "cells"), [(28, 28), (28, 64), (14, 64)])
@pytest.mark.parametrize("name", ["coco-mini", "nuclei"])
def test_targets_of_real_objects(name: str, resolution: int, cells: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Against Detectron2's crop of the whole image's pixels: at most 1 % of the cells are others."""
    if not (DATA / name).is_dir():
        pytest.skip(f"{DATA / name} is not here")
    shares = differences(
        read_set(DATA / name / "annotations/instances_val.json", DATA / name / "val"), resolution, cells
    )
    with capsys.disabled():
        print(f"\n{name} val, M = {resolution}, B = {cells}: {shares.mean():.2%} of the cells of {len(shares)} targets")
    assert shares.mean() <= 0.01
