"""Every class of albumentations is known here, and moves objects to where it moves their pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from resdet.config import Config
from resdet.data.augment import library
from resdet.data.augment.samples import ListedSamples
from resdet.data.images.library import A
from resdet.data.sets.coco import CocoDataset

NEEDED: dict[str, dict[str, Any]] = {
    "AtLeastOneBBoxRandomCrop": {"height": 60, "width": 60},
    "CenterCrop": {"height": 60, "width": 60},
    "Crop": {"x_max": 70, "y_max": 70},
    "CropAndPad": {"px": -8},
    "GridElasticDeform": {"num_grid_xy": [4, 4], "magnitude": 5},
    "LongestMaxSize": {"max_size": 90},
    "RandomCrop": {"height": 60, "width": 60},
    "RandomResizedCrop": {"size": [60, 60]},
    "RandomSizedBBoxSafeCrop": {"height": 60, "width": 60},
    "RandomSizedCrop": {"min_max_height": [50, 80], "size": [60, 60]},
    "Resize": {"height": 60, "width": 60},
    "SmallestMaxSize": {"max_size": 90},
    "PadIfNeeded": {"min_height": 170, "min_width": 170},
}
BASES = {"BasicTransform", "DualTransform", "ImageOnlyTransform", "Transform3D"}


def classes() -> set[str]:
    found = {name for name in dir(A) if isinstance(getattr(A, name), type)}
    return {name for name in found if issubclass(getattr(A, name), A.BasicTransform)} - BASES


def test_every_class_is_in_exactly_one_list() -> None:
    lists = [library.PIXELS, library.LINES, library.BENDS, set(library.REFUSED)]
    assert sum(map(len, lists)) == len(set().union(*lists))
    assert set().union(*lists) == classes()
    assert library.LINES >= library.FROM_THE_CORNER | library.READ_BOXES | library.KEEP_THE_SIZE


@pytest.mark.parametrize("name", sorted(library.NAMES))
def test_a_transform_is_a_function_of_the_seed_that_keeps_its_promises(
    name: str, dataset: CocoDataset, config: Config
) -> None:
    """Of its size, of its counts, and of the boxes of an object that no pixel change moves."""
    config.data.augment.transforms = [{name: {**NEEDED.get(name, {}), "p": 1.0}}]
    samples = ListedSamples(dataset, config.data)
    one = samples.sample(0, 3, 16)
    _ = samples.sample(1, 50, None)  # what came before does not matter
    two = samples.sample(0, 3, 16)
    np.testing.assert_array_equal(one.image, two.image)
    np.testing.assert_array_equal(one.boxes, two.boxes)
    np.testing.assert_array_equal(one.masks, two.masks)
    assert samples.size(0, 3) == one.image.shape[:2]
    assert len(one.rows) + sum(one.dropped.values()) == 6
    if samples.transforms[0].keeps_size:
        assert one.image.shape == (120, 160, 3)
    if name in library.PIXELS:
        np.testing.assert_array_equal(one.boxes, dataset.boxes[:6])


def test_the_corners_say_where_a_resize_puts_the_pixels(dataset: CocoDataset, config: Config) -> None:
    """Boxes scale exactly; the library's own points are off by half a pixel of the difference."""
    config.data.augment.transforms = [{"Resize": {"height": 240, "width": 80, "p": 1.0}}]
    sample = ListedSamples(dataset, config.data).sample(0, 0, None)
    np.testing.assert_allclose(sample.boxes, dataset.boxes[:6] * [0.5, 2, 0.5, 2], atol=1e-3)


def test_a_rotated_box_is_taken_from_its_mask_where_there_is_one(dataset: CocoDataset, config: Config) -> None:
    """The corners of an L or an octagon are not all occupied; a box alone can only grow."""
    config.data.augment.transforms = [{"SafeRotate": {"limit": [45, 45], "p": 1.0}}]
    sample = ListedSamples(dataset, config.data).sample(0, 0, None)
    areas = (sample.boxes[:, 2:] - sample.boxes[:, :2]).prod(axis=1)
    octagon, box_alone = areas[sample.rows == 3], areas[sample.rows == 2]
    assert len(octagon) == len(box_alone) == 1
    assert octagon[0] < box_alone[0]
