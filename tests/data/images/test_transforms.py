"""Augmentation moves boxes with their pixels, and is a function of the seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resdet.data.images.transforms import Augmentation

BOXES = np.array([[2, 3, 12, 9], [20, 1, 30, 19], [0, 0, 0.5, 10]], np.float32)  # the last is under a pixel wide
FLIP, KEEP = Augmentation(flip=1.0, photometric=0.0), Augmentation(flip=0.0, photometric=0.0)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def test_a_flip_mirrors_image_and_boxes(image: np.ndarray) -> None:
    flipped = FLIP(image, BOXES, seed=5)
    np.testing.assert_array_equal(flipped.image, image[:, ::-1])
    np.testing.assert_array_equal(flipped.boxes, [[18, 3, 28, 9], [0, 1, 10, 19], [29.5, 0, 30, 10]])
    np.testing.assert_array_equal(flipped.corners, [[30, 0], [0, 20]])


def test_nothing_asked_for_changes_nothing(image: np.ndarray) -> None:
    same = KEEP(image, BOXES, seed=5)
    np.testing.assert_array_equal(same.image, image)
    np.testing.assert_array_equal(same.boxes, BOXES)
    np.testing.assert_array_equal(same.corners, [[0, 0], [30, 20]])


@st.composite
def scenes(draw: st.DrawFn) -> tuple[tuple[int, int], np.ndarray]:
    """The (height, width) of an image, and boxes inside it: of whole pixels, of fractions, of almost nothing."""
    height, width = draw(st.integers(1, 12)), draw(st.sampled_from([1, 2, 3, 97, 131, 640, 1333]))
    boxes = []
    for _ in range(draw(st.integers(0, 5))):
        whole = draw(st.booleans())
        corners = []
        for limit in (width, height):
            smallest = draw(st.sampled_from([0.01, 0.5, 1.0]))
            low = draw(st.integers(0, limit - 1) if whole else st.floats(0, limit - smallest))
            size = 1 if whole else draw(st.floats(smallest, limit))
            corners.append((low, min(limit, low + size)))
        boxes.append([corners[0][0], corners[1][0], corners[0][1], corners[1][1]])
    return (height, width), np.array(boxes, np.float32).reshape(-1, 4)


@settings(max_examples=150, deadline=None)
@given(scenes())
def test_a_flip_loses_no_object_and_twice_is_none(scene: tuple[tuple[int, int], np.ndarray]) -> None:
    size, boxes = scene
    image = np.zeros((*size, 3), np.uint8)
    once = FLIP(image, boxes, seed=0)
    assert once.boxes.shape == boxes.shape
    assert (once.boxes[:, :2] < once.boxes[:, 2:]).all()
    assert ((once.boxes >= 0) & (once.boxes <= np.tile(size[::-1], 2))).all()
    np.testing.assert_array_equal(once.boxes[:, [1, 3]], boxes[:, [1, 3]])
    twice = FLIP(image, once.boxes, seed=0)
    np.testing.assert_allclose(twice.boxes, boxes, rtol=0, atol=np.spacing(np.float32(size[1])))
    np.testing.assert_array_equal(KEEP(image, boxes, seed=0).boxes, boxes)


@pytest.mark.parametrize("width", [131, 640, 1333])
def test_objects_one_pixel_wide_stay_so_wherever_they_are(width: int) -> None:
    left = np.arange(width, dtype=np.float32)
    boxes = np.stack((left, np.full_like(left, 10), left + 1, np.full_like(left, 50)), axis=1)
    flipped = FLIP(np.zeros((97, width, 3), np.uint8), boxes, seed=1).boxes
    np.testing.assert_array_equal(flipped, boxes[::-1])


def test_a_seed_decides_everything_whatever_came_before(image: np.ndarray) -> None:
    first, second = Augmentation(flip=0.5, photometric=1.0), Augmentation(flip=0.5, photometric=1.0)
    _ = second(image, BOXES, seed=9)
    for seed in range(5):
        one, other = first(image, BOXES, seed=seed), second(image, BOXES, seed=seed)
        for name in ("image", "boxes", "corners"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert not np.array_equal(first(image, BOXES, seed=1).image, first(image, BOXES, seed=2).image)


def test_images_without_boxes_stay_without(image: np.ndarray) -> None:
    changed = Augmentation(flip=1.0, photometric=1.0)(image, BOXES[:0], seed=0)
    assert changed.boxes.shape == (0, 4)


def test_photometric_changes_leave_boxes_alone(image: np.ndarray) -> None:
    changed = Augmentation(flip=0.0, photometric=1.0)(image, BOXES, seed=3)
    assert changed.image.dtype == np.uint8
    assert not np.array_equal(changed.image, image)
    np.testing.assert_array_equal(changed.boxes, BOXES)
