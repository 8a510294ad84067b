"""Augmentation moves boxes with their pixels, and is a function of the seed."""

from __future__ import annotations

import numpy as np
import pytest

from resdet.data.images.transforms import Augmentation

BOXES = np.array([[2, 3, 12, 9], [20, 1, 30, 19], [0, 0, 0.5, 10]], np.float32)  # the last is under a pixel wide


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def test_a_flip_mirrors_image_and_boxes(image: np.ndarray) -> None:
    flipped = Augmentation(flip=1.0, photometric=0.0)(image, BOXES, seed=5)
    np.testing.assert_array_equal(flipped.image, image[:, ::-1])
    np.testing.assert_allclose(flipped.boxes, [[18, 3, 28, 9], [0, 1, 10, 19]], atol=1e-5)
    np.testing.assert_allclose(flipped.corners, [[30, 0], [0, 20]])
    assert flipped.kept.tolist() == [0, 1]


def test_nothing_asked_for_changes_nothing_but_drops_boxes_under_a_pixel(image: np.ndarray) -> None:
    same = Augmentation(flip=0.0, photometric=0.0)(image, BOXES, seed=5)
    np.testing.assert_array_equal(same.image, image)
    np.testing.assert_allclose(same.boxes, BOXES[:2], atol=1e-5)
    np.testing.assert_allclose(same.corners, [[0, 0], [30, 20]])
    assert same.kept.tolist() == [0, 1]


def test_a_seed_decides_everything_whatever_came_before(image: np.ndarray) -> None:
    first, second = Augmentation(flip=0.5, photometric=1.0), Augmentation(flip=0.5, photometric=1.0)
    _ = second(image, BOXES, seed=9)
    for seed in range(5):
        one, other = first(image, BOXES, seed=seed), second(image, BOXES, seed=seed)
        for name in ("image", "boxes", "kept", "corners"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert not np.array_equal(first(image, BOXES, seed=1).image, first(image, BOXES, seed=2).image)


def test_images_without_boxes_stay_without(image: np.ndarray) -> None:
    changed = Augmentation(flip=1.0, photometric=1.0)(image, BOXES[:0], seed=0)
    assert changed.boxes.shape == (0, 4)
    assert changed.kept.shape == (0,)


def test_photometric_changes_leave_boxes_alone(image: np.ndarray) -> None:
    changed = Augmentation(flip=0.0, photometric=1.0)(image, BOXES, seed=3)
    assert changed.image.dtype == np.uint8
    assert not np.array_equal(changed.image, image)
    np.testing.assert_allclose(changed.boxes, BOXES[:2], atol=1e-5)
