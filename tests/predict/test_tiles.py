"""Tiles: they cover the image, and an object that a seam cuts is found once, with the box of the whole image."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import UInt8
from torch import nn

from resdet.coco.run_lengths import encode_pixels
from resdet.errors import UserError
from resdet.predict.predictor import Predictor
from resdet.predict.tiles import Tiling
from resdet.structures import Batch, Detections

SLOTS = 40


class Blobs(nn.Module):
    """A detector that is exact: the bounding box of every connected bright part; the class is its brightness."""

    def __init__(self, *, masks: bool = False) -> None:
        super().__init__()
        self.masks = masks
        self.place = nn.Parameter(torch.zeros(()))

    def predict(self, batch: Batch) -> Detections:
        count = len(batch.images)
        boxes, scores = torch.zeros(count, SLOTS, 4), torch.zeros(count, SLOTS)
        labels = torch.zeros(count, SLOTS, dtype=torch.int64)
        for image, (pixels, size) in enumerate(zip(batch.images, batch.sizes.tolist(), strict=True)):
            grey = pixels[0, : size[0], : size[1]].numpy()
            _, _, parts, _ = cv2.connectedComponentsWithStats((grey > 0).astype(np.uint8))
            for slot, (x, y, width, height, area) in enumerate(parts[1:].tolist()):
                boxes[image, slot] = torch.tensor([x, y, x + width, y + height])
                scores[image, slot] = 0.5 + area / 1e6
                labels[image, slot] = int(grey[y : y + height, x : x + width].max()) // 100 - 1
        masks = torch.ones(count, SLOTS, 4, 4) if self.masks else None
        return Detections(boxes, scores, labels, scores > 0, masks)


def predictor(*, masks: bool = False) -> Predictor:
    """It resizes no image: the short side of a tile is that of the detector."""
    return Predictor(
        Blobs(masks=masks), short_side=64, max_side=10_000, size_divisor=32, class_names=["dim", "bright"], batch_size=3
    )


def whole_predictor(image: UInt8[np.ndarray, "H W 3"]) -> Predictor:
    side = min(image.shape[:2])
    return Predictor(Blobs(), short_side=side, max_side=10_000, size_divisor=32, class_names=["dim", "bright"])


def scene(height: int, width: int, rectangles: list[tuple[int, int, int, int, int]]) -> UInt8[np.ndarray, "H W 3"]:
    """Rectangles (x, y, width, height, brightness) that do not touch; later ones that would touch are left out."""
    image = np.zeros((height, width, 3), np.uint8)
    for x, y, across, down, brightness in rectangles:
        if not image[max(0, y - 1) : y + down + 1, max(0, x - 1) : x + across + 1].any():
            image[y : y + down, x : x + across] = brightness
    return image


@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 64), (200, 150), (10, 1000), (64, 129)])
@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5, 0.9])
def test_tiles_cover_the_image_and_share_what_is_asked(height: int, width: int, overlap: float) -> None:
    windows = Tiling(64, overlap).windows(height, width)
    covered = np.zeros((height, width), int)
    for x1, y1, x2, y2 in windows.tolist():
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        assert (y2 - y1, x2 - x1) == (min(64, height), min(64, width))
        covered[y1:y2, x1:x2] += 1
    assert covered.min() == 1
    for first, second in pairwise(sorted(set(windows[:, 0].tolist()))):
        assert first + 64 - second >= int(64 * overlap)


def test_an_image_of_one_tile_is_predicted_as_without_tiles() -> None:
    image = scene(64, 64, [(5, 5, 20, 10, 100), (40, 30, 10, 10, 200)])
    tiled, plain = predictor()(image, tiling=Tiling(64)), predictor()(image)
    assert tiled.boxes.tolist() == plain.boxes.tolist()
    assert tiled.labels.tolist() == plain.labels.tolist()


@pytest.mark.parametrize("overlap", [0.2, 0.5])
def test_an_object_on_a_seam_is_found_once_at_every_place(overlap: float) -> None:
    """It moves over both seams pixel by pixel, and is longer than what the tiles share."""
    for place in range(0, 130, 3):
        image = scene(128, 190, [(place, 3 + place // 2, 50, 30, 100)])
        found = predictor()(image, tiling=Tiling(64, overlap))
        assert found.boxes.tolist() == whole_predictor(image)(image).boxes.tolist(), place


def test_an_object_larger_than_a_tile_is_found_once() -> None:
    image = scene(200, 260, [(10, 20, 240, 150, 200)])
    found = predictor()(image, tiling=Tiling(64, 0.3))
    assert found.boxes.tolist() == [[10, 20, 250, 170]]


RECTANGLE = st.tuples(
    st.integers(0, 120), st.integers(0, 90), st.integers(3, 60), st.integers(3, 60), st.sampled_from([100, 200])
)


@settings(max_examples=60, deadline=None)
@given(st.lists(RECTANGLE, max_size=12))
def test_tiles_find_exactly_the_objects_of_the_whole_image(rectangles: list[tuple[int, int, int, int, int]]) -> None:
    image = scene(130, 180, rectangles)
    found, wanted = predictor()(image, tiling=Tiling(64, 0.25)), whole_predictor(image)(image)
    assert sorted(zip(found.labels.tolist(), found.boxes.tolist(), strict=True)) == sorted(
        zip(wanted.labels.tolist(), wanted.boxes.tolist(), strict=True)
    )


def test_masks_are_joined_too() -> None:
    image = scene(64, 150, [(20, 10, 100, 30, 100)])
    found = predictor(masks=True)(image, tiling=Tiling(64, 0.25))
    assert found.boxes.tolist() == [[20, 10, 120, 40]]
    assert found.masks is not None
    inside = image[:, :, 0] > 0
    assert not found.masks[0][~inside].any()
    assert found.masks[0][inside].mean() > 0.95  # a mask of few cells is round at the corners of its box
    assert found.masks[0][25, 20:120].all()  # the seams are closed


def test_a_mask_in_a_window_is_encoded_as_the_whole_image() -> None:
    from pycocotools import mask as reference

    mask = np.zeros((20, 30), bool)
    mask[5:20, 3:9] = np.random.default_rng(0).random((15, 6)) < 0.5
    assert encode_pixels(mask[5:20, 3:9], 3, 5, 20, 30) == reference.encode(np.asfortranarray(mask.astype(np.uint8)))


@pytest.mark.parametrize("values", [(8, 0.2), (64, -0.1), (64, 0.95), (64, float("nan"))])
def test_tiles_that_cannot_be_are_one_line(values: tuple[int, float]) -> None:
    with pytest.raises(UserError):
        _ = Tiling(*values)
