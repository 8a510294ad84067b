"""Laws of every list of transforms, read off the pixels: each object of the data set has a colour of its own."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coloured import colour_of
from resdet.config import Config
from resdet.data.augment.samples import ListedSamples, Sampled
from resdet.data.sets.coco import CocoDataset

Row = dict[str, dict[str, Any]]
ALWAYS = {"p": 1.0}
AROUND = 4  # pixels
KEEP_COLOURS: list[Row] = [
    {"short_side": {"range": [100, 140]}},
    {"large_scale_jitter": {"size": 140, "scale": [0.7, 1.6], "fill": 0}},
    {"min_iou_crop": {"scale": [0.5, 1.0]}},
    {"expand": {"ratio": [1.0, 1.5], "fill": 0, **ALWAYS}},
    {"horizontal_flip": ALWAYS},
    {"vertical_flip": ALWAYS},
    {"mosaic": {"size": 150, "scale": [0.8, 1.2], "fill": 0}},
    {"mosaic": {"size": 150, "scale": [0.8, 1.2], "fill": 0, "alone": 1.0}},
    {"copy_paste": ALWAYS},
    {"HorizontalFlip": ALWAYS},
    {"RandomRotate90": ALWAYS},
    {"Transpose": ALWAYS},
    {"Rotate": {"limit": 40, **ALWAYS}},
    {"Affine": {"rotate": [-20, 20], "shear": [-8, 8], "scale": [0.8, 1.2], **ALWAYS}},
    {"Perspective": {"scale": [0.02, 0.06], **ALWAYS}},
    {"RandomCrop": {"height": 80, "width": 80, "pad_if_needed": True, **ALWAYS}},
    {"RandomResizedCrop": {"size": [120, 120], "scale": [0.5, 1.0], **ALWAYS}},
    {"Resize": {"height": 130, "width": 110, **ALWAYS}},
    {"SmallestMaxSize": {"max_size": 150, **ALWAYS}},
    {"CropAndPad": {"px": [-12, 9], **ALWAYS}},
    {"BBoxSafeRandomCrop": ALWAYS},
    {"GridDistortion": {"distort_limit": 0.2, **ALWAYS}},
    {"ElasticTransform": {"alpha": 20, "sigma": 8, **ALWAYS}},
]
ONE_ORDER = [name for row in KEEP_COLOURS for name in row]


def sampled(dataset: CocoDataset, config: Config, rows: list[Row], index: int, seed: int) -> Sampled:
    config.data.augment.transforms = rows  # pyright: ignore[reportAttributeAccessIssue]
    return ListedSamples(dataset, config.data).sample(index, seed, 32)


def pixels_of(sample: Sampled, annotation: int, box: np.ndarray) -> np.ndarray:
    """The pixels in a box and around it that have an object's colour, darkened by the background to at most a half."""
    brightest = np.maximum(sample.image.max(axis=2), 1)
    colours = sample.image * (255.0 / brightest[:, :, None])
    pixels = (np.abs(colours - colour_of(annotation)).max(axis=2) < 17) & (brightest > 127)
    x1, y1 = np.maximum(np.floor(box[:2] - AROUND), 0).astype(int).tolist()
    x2, y2 = np.ceil(box[2:] + AROUND).astype(int).tolist()
    near = np.zeros_like(pixels)
    near[y1:y2, x1:x2] = True
    return pixels & near


def check_objects_lie_on_their_pixels(
    sample: Sampled, dataset: CocoDataset, *, too_large: float, too_small: float = 1.6
) -> None:
    """`too_large` is what a box may be larger than its pixels."""
    height, width = sample.image.shape[:2]
    assert len(sample.boxes) == len(sample.rows) == len(sample.ignored)
    assert sample.masks is not None
    assert (sample.boxes[:, :2] >= -0.01).all()
    assert (sample.boxes[:, 2:] <= np.array([width, height]) + 0.01).all()
    assert (sample.boxes[:, 2:] - sample.boxes[:, :2] > 0.99)[~dataset.crowd[sample.rows]].all()
    single = np.bincount(sample.rows, minlength=len(dataset.labels)) == 1
    for box, row, mask, ignored in zip(sample.boxes, sample.rows.tolist(), sample.masks, sample.ignored, strict=True):
        if ignored or dataset.crowd[row] or not mask.any() or not single[row]:
            continue
        colour = pixels_of(sample, int(dataset.annotation_ids[row]) - 1000, box)
        ys, xs = np.nonzero(colour)
        sides = box[2:] - box[:2]
        if sides.min() < 6 or colour.sum() < 0.15 * sides.prod():
            continue  # so little is left that pixels of the border decide
        visible = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        gap = (visible - box) * [1, 1, -1, -1]  # positive where the box is the larger
        assert gap.min() > -too_small, (box, visible)
        assert gap.max() < too_large, (box, visible)
        x1, y1, x2, y2 = np.rint(box).astype(int).tolist()
        drawn = cv2.resize(mask, (x2 - x1, y2 - y1), interpolation=cv2.INTER_LINEAR) > 127
        seen = colour[y1:y2, x1:x2]
        overlap = (drawn & seen).sum() / max((drawn | seen).sum(), 1)
        assert overlap > 0.6, (row, box, overlap)


@pytest.mark.parametrize("row", KEEP_COLOURS, ids=ONE_ORDER)
@pytest.mark.parametrize("seed", [1, 2])
def test_boxes_and_masks_lie_on_the_pixels_of_their_object(
    row: Row, seed: int, dataset: CocoDataset, config: Config
) -> None:
    stretched = {"GridDistortion", "ElasticTransform"} & set(row)  # so are the pixels between object and background
    for index in range(len(dataset)):
        sample = sampled(dataset, config, [row], index, seed)
        check_objects_lie_on_their_pixels(sample, dataset, too_large=2.5 if stretched else 1.6)
        assert len(sample.rows) >= 1


@settings(derandomize=True, max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.sampled_from(KEEP_COLOURS), min_size=2, max_size=4).filter(
        lambda rows: sum("mosaic" in row or "copy_paste" in row for row in rows) <= 2
    ),
    seed=st.integers(0, 2**32 - 1),
    index=st.integers(0, 3),
)
def test_objects_stay_with_their_labels_masks_and_ids_under_every_composition(
    rows: list[Row], seed: int, index: int, dataset: CocoDataset, config: Config
) -> None:
    sample = sampled(dataset, config, rows, index, seed)
    # a slanted object that was cut may end in a tip too thin to have its colour
    check_objects_lie_on_their_pixels(sample, dataset, too_large=25, too_small=3)
    crowd = dataset.crowd[sample.rows]
    assert (sample.ignored | ~crowd).all()
    assert sample.masks is not None
    assert not sample.masks[crowd].any()


@settings(derandomize=True, max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.sampled_from([row for row in KEEP_COLOURS if not {"mosaic", "copy_paste"} & set(row)]), max_size=4
    ),
    seed=st.integers(0, 2**32 - 1),
    index=st.integers(0, 3),
)
def test_no_object_is_lost_uncounted(
    rows: list[Row], seed: int, index: int, dataset: CocoDataset, config: Config
) -> None:
    sample = sampled(dataset, config, rows, index, seed)
    entered = int(np.diff(dataset.offsets)[index])
    assert len(sample.rows) + sum(sample.dropped.values()) == entered
    assert len(set(sample.rows.tolist())) == len(sample.rows)
    assert set(sample.rows.tolist()) <= set(range(*dataset.offsets[[index, index + 1]].tolist()))


def test_several_images_lose_no_object_uncounted(dataset: CocoDataset, config: Config) -> None:
    """Every image has six objects: a mosaic begins with 24, and mixup with two of them."""
    for seed in range(8):
        mosaic = sampled(dataset, config, [{"mosaic": {}}], 0, seed)
        assert len(mosaic.rows) + sum(mosaic.dropped.values()) == 24
        mixed = sampled(dataset, config, [{"mosaic": {}}, {"mixup": ALWAYS}], 0, seed)
        assert len(mixed.rows) + sum(mixed.dropped.values()) == 48


@pytest.mark.parametrize("name", ["horizontal_flip", "vertical_flip", "HorizontalFlip", "Transpose"])
@pytest.mark.parametrize("first", [None, {"Rotate": {"limit": [30, 30], "p": 1.0}}, {"large_scale_jitter": {}}])
def test_a_flip_twice_is_the_identity(name: str, first: Row | None, dataset: CocoDataset, config: Config) -> None:
    before = [first] if first else []
    once = sampled(dataset, config, before, 1, 7)
    twice = sampled(dataset, config, [*before, {name: ALWAYS}, {name: ALWAYS}], 1, 7)
    np.testing.assert_array_equal(twice.image, once.image)
    np.testing.assert_array_equal(twice.rows, once.rows)
    whole = 1.0 if name == "Transpose" else 0.01  # a transposed mask is drawn again, and its box is taken from it
    np.testing.assert_allclose(twice.boxes, once.boxes, atol=whole)
    assert once.masks is not None
    assert twice.masks is not None
    if name != "Transpose":
        np.testing.assert_allclose(twice.masks, once.masks, atol=1)


def test_an_empty_list_changes_nothing(dataset: CocoDataset, config: Config) -> None:
    sample = sampled(dataset, config, [], 2, 5)
    assert sample.image.shape[:2] == (140, 140)
    np.testing.assert_array_equal(sample.boxes, dataset.boxes[dataset.rows(2)])
    np.testing.assert_array_equal(sample.ignored, dataset.crowd[dataset.rows(2)])
