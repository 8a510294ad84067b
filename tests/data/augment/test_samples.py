"""Augmented batches are a pure function of (seed, step), and a list that cannot work is refused before the first."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from resdet.config import Config, checked
from resdet.config.check import shown
from resdet.config.declare import Key, declared
from resdet.data.augment.samples import ListedSamples
from resdet.data.augment.table import PRESETS, TRANSFORMS
from resdet.data.batches.loader import LoadedBatch, open_split, training_batches
from resdet.data.images.transforms import PIXEL_CHANGES
from resdet.data.sets.coco import CocoDataset
from resdet.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
EVERYTHING: list[Any] = [
    {"SafeRotate": {"limit": 20, "p": 0.5}},
    {"ElasticTransform": {"alpha": 10, "p": 0.1}},
    {"RandomCropFromBorders": {"p": 0.5}},
    {"expand": {"ratio": [1, 1.3]}},
    {"min_iou_crop": {}},
    {"short_side": {"range": [80, 120]}},
    {"copy_paste": {"p": 0.4}},
    {"mosaic": {"p": 0.3}},
    {"mixup": {"p": 0.3}},
    {"GaussNoise": {"p": 1.0}},
    {"colour_jitter": {"p": 1.0}},
    {"blur": {"p": 0.5}},
]


def first(
    count: int, dataset: CocoDataset, config: Config, *, start_step: int = 0, rank: int = 0, world_size: int = 1
) -> list[LoadedBatch]:
    return list(
        islice(training_batches(dataset, config, start_step=start_step, rank=rank, world_size=world_size), count)
    )


def tensors(loaded: LoadedBatch) -> list[torch.Tensor]:
    batch, targets = loaded.batch, loaded.batch.targets
    assert targets is not None
    assert targets.masks is not None
    return [batch.images, batch.sizes, targets.boxes, targets.labels, targets.crowd, targets.valid, targets.masks]


def assert_same(one: list[LoadedBatch], other: list[LoadedBatch]) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.images == b.images
        assert a.dropped == b.dropped
        for left, right in zip(tensors(a), tensors(b), strict=True):
            torch.testing.assert_close(left, right, rtol=0, atol=0)


@pytest.fixture
def augmented(config: Config) -> Config:
    config.data.augment.transforms = EVERYTHING
    return config


def test_batches_are_the_same_for_any_number_of_workers_and_after_a_resume(
    dataset: CocoDataset, augmented: Config
) -> None:
    alone = first(4, dataset, augmented)
    assert_same(alone[3:], first(1, dataset, augmented, start_step=3))
    augmented.data.workers = 2
    assert_same(alone, first(4, dataset, augmented))


def test_two_processes_pad_to_the_shape_of_the_whole_batch_and_see_its_halves(
    dataset: CocoDataset, augmented: Config
) -> None:
    """The sizes of the other process's images are computed without their pixels."""
    whole = first(4, dataset, augmented)
    halves = [first(4, dataset, augmented, rank=rank, world_size=2) for rank in range(2)]
    for step, loaded in enumerate(whole):
        images, sizes, *_ = tensors(loaded)
        torch.testing.assert_close(torch.cat([tensors(half[step])[0] for half in halves]), images, rtol=0, atol=0)
        torch.testing.assert_close(torch.cat([tensors(half[step])[1] for half in halves]), sizes, rtol=0, atol=0)
        for row, half in enumerate(halves):
            ours, theirs = loaded.batch.targets, half[step].batch.targets
            assert ours is not None
            assert theirs is not None
            torch.testing.assert_close(
                theirs.boxes[0][theirs.valid[0]], ours.boxes[row][ours.valid[row]], rtol=0, atol=0
            )


def test_a_size_without_pixels_is_the_size_with_pixels(dataset: CocoDataset, augmented: Config) -> None:
    samples = ListedSamples(dataset, augmented.data)
    for seed in range(12):
        image = samples.sample(seed % 4, seed, None).image
        assert samples.size(seed % 4, seed) == image.shape[:2]


def test_every_epoch_draws_anew(dataset: CocoDataset, augmented: Config) -> None:
    augmented.data.augment.transforms = [{"large_scale_jitter": {}}]
    batches = first(8, dataset, augmented)  # four epochs of four images
    seen = {loaded.batch.images[row].numpy().tobytes() for loaded in batches for row in range(2)}
    assert len(seen) == 16


def test_one_transform_less_changes_what_no_other_draws(dataset: CocoDataset, augmented: Config) -> None:
    """Each transform has a generator of its own: pixels that change do not move boxes."""
    augmented.data.augment.transforms = [{"large_scale_jitter": {}}, {"colour_jitter": {"p": 1.0}}]
    one = ListedSamples(dataset, augmented.data).sample(0, 5, None)
    augmented.data.augment.transforms = [{"large_scale_jitter": {}}, {"GaussNoise": {"p": 1.0}}]
    two = ListedSamples(dataset, augmented.data).sample(0, 5, None)
    np.testing.assert_array_equal(one.boxes, two.boxes)
    assert not np.array_equal(one.image, two.image)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_one_word(preset: str, dataset: CocoDataset, config: Config) -> None:
    config.data.augment.transforms = preset  # pyright: ignore[reportAttributeAccessIssue]  # as a config writes it
    assert checked(config).data.augment.transforms == [{preset: {}}]
    loaded = first(2, dataset, checked(config))
    assert all(batch.batch.targets is not None and batch.batch.targets.valid.any() for batch in loaded)


def test_sizes_of_presets_follow_the_short_side(dataset: CocoDataset, config: Config) -> None:
    """Detectron2 draws 640, 672, ... 800 where the short side is 800."""
    config.data.augment.short_side, config.data.augment.max_side = [400], 4000
    config.data.augment.transforms = [{"standard": {}}]
    samples = ListedSamples(dataset, config.data)
    assert {min(samples.size(0, seed)) for seed in range(60)} == {320, 336, 352, 368, 384, 400}
    config.data.augment.transforms = [{"lsj": {}}]
    assert ListedSamples(dataset, config.data).size(1, 3) == (400, 400)


def test_a_short_side_is_drawn_from_a_list_or_a_range(dataset: CocoDataset, config: Config) -> None:
    for arguments, expected in (({"sizes": [50, 60]}, {50, 60}), ({"range": [50, 53]}, {50, 51, 52, 53})):
        config.data.augment.transforms = [{"short_side": arguments}]
        samples = ListedSamples(dataset, config.data)
        assert {min(samples.size(0, seed)) for seed in range(60)} == expected


def test_a_min_iou_crop_keeps_an_object_and_ignores_those_with_their_centre_outside(
    dataset: CocoDataset, config: Config
) -> None:
    config.data.augment.transforms = [{"min_iou_crop": {"ious": [0.0]}}]
    samples, some_ignored = ListedSamples(dataset, config.data), False
    for seed in range(20):
        sample = samples.sample(0, seed, None)
        assert (~sample.ignored).sum() >= 1
        some_ignored |= bool((sample.ignored & ~dataset.crowd[sample.rows]).any())
    assert some_ignored


def test_an_object_of_which_too_little_is_left_is_ignored(dataset: CocoDataset, config: Config) -> None:
    """The left 20 columns of image 0 have the first 16 of the 41 columns of one box of each row."""
    config.data.augment.transforms = [{"Crop": {"x_min": 0, "y_min": 0, "x_max": 20, "y_max": 120, "p": 1.0}}]
    kept = ListedSamples(dataset, config.data).sample(0, 0, None)
    assert kept.rows.tolist() == [0, 3]
    assert not kept.ignored.any()
    config.data.augment.min_visible = 0.5
    assert ListedSamples(dataset, config.data).sample(0, 0, None).ignored.all()


def test_pasted_objects_hide_what_is_below(dataset: CocoDataset, config: Config) -> None:
    config.data.augment.transforms = [{"copy_paste": {"p": 1.0, "share": 1.0}}]
    samples = ListedSamples(dataset, config.data)
    config.data.augment.transforms = []
    below = ListedSamples(dataset, config.data).sample(0, 0, 32).masks
    assert below is not None
    changed = 0
    for sample in (samples.sample(0, seed, 32) for seed in range(6)):
        pasted = sample.rows[sample.rows >= 6]
        assert dataset.segmentations.present()[pasted].all()
        assert not dataset.crowd[pasted].any()
        assert sample.masks is not None
        changed += sum(
            not np.array_equal(mask, below[row]) for mask, row in zip(sample.masks, sample.rows, strict=True) if row < 6
        )
    assert changed >= 3


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"mosiac": {}}], r"transforms\[0\]: mosiac is not known; did you mean 'mosaic'"),
        ([{"HorizontalFlipp": {}}], r"transforms\[0\]: HorizontalFlipp is not known; did you mean 'HorizontalFlip'"),
        ([{"zzz": {}}], r"zzz is not known; known: light, .*, and transforms of albumentations"),
        ([{"lsj": {}}, {"mosaic": {"scal": [1, 1]}}], r"unknown key 'data.augment.transforms\[1\].mosaic.scal'; did"),
        ([{"mosaic": {"scale": [0, 1]}}], r"transforms\[0\].mosaic.scale=\[0, 1\] must be a list of 2 numbers above 0"),
        ([{"mixup": {"p": 1.5}}], r"mixup.p=1.5 must be a number of at least 0 and at most 1"),
        ([{"heavy": {"p": 1.0}}], r"the preset heavy takes no arguments"),
        ([{"Rotate": {"limits": 30}}], r"Rotate has no argument 'limits'; did you mean 'limit'"),
        ([{"CLAHE": {"clip_limit": "much"}}], r"CLAHE refuses its arguments .*clip_limit"),
        ([{"CLAHE": {"p": 7}}], r"CLAHE refuses its arguments .*p: Input should be less than or equal to 1"),
        ([{"PadIfNeeded": {"border_mode": 4}}], r"PadIfNeeded.border_mode=4 shows objects again"),
        ([{"Mosaic": {}}], r"Mosaic of albumentations takes its images as an argument; use mosaic"),
        ([{"CenterCrop3D": {"size": [8, 8, 8]}}], r"CenterCrop3D of albumentations is for volumes"),
        ([{"Compose": {}}], r"Compose is not known"),
        ([{"__init__": {}}], r"__init__ is not known"),
        ([{"mosaic": {}}] * 4, r"puts up to 256 images together, more than 64"),
        ([{"grey": {"strength": 3}}], r"unknown key 'data.augment.transforms\[0\].grey.strength'; known: p"),
    ],
)
def test_a_list_that_does_not_fit_is_one_clear_line_when_the_data_is_opened(
    rows: list[Any], message: str, config: Config
) -> None:
    config.data.augment.transforms = rows
    with pytest.raises(UserError, match=message) as error:
        _ = open_split(config.data, "train")
    assert "\n" not in str(error.value)


def test_a_list_that_drops_every_object_is_refused_before_the_first_batch(dataset: CocoDataset, config: Config) -> None:
    corner = {"Crop": {"x_min": 0, "y_min": 0, "x_max": 3, "y_max": 3, "p": 1.0}}
    config.data.augment.transforms = [{"horizontal_flip": {}}, corner, {"blur": {}}]
    with pytest.raises(UserError, match="no object of the first 4 images is left after Crop") as error:
        _ = training_batches(dataset, config, start_step=0, rank=0, world_size=1)
    assert "\n" not in str(error.value)


def test_a_crop_larger_than_the_smallest_image_is_refused_before_the_first_batch(
    dataset: CocoDataset, config: Config
) -> None:
    config.data.augment.transforms = [{"RandomCrop": {"height": 110, "width": 110, "p": 1.0}}]
    with pytest.raises(UserError, match="RandomCrop cannot change an image 100 high and 150 wide: Crop size"):
        _ = training_batches(dataset, config, start_step=0, rank=0, world_size=1)


def test_copy_paste_without_masks_is_refused(folder: Path, config: Config) -> None:
    text = (
        (folder / "a.json").read_text().replace('"segmentation"', '"outline"').replace('"iscrowd": 1', '"iscrowd": 0')
    )
    _ = (folder / "boxes.json").write_text(text)
    config.data.train.annotations = str(folder / "boxes.json")
    config.data.augment.transforms = [{"copy_paste": {}}]
    with pytest.raises(UserError, match=r"copy_paste needs masks, and .*boxes\.json has none"):
        _ = open_split(config.data, "train")


def test_a_pixel_change_of_ones_own_is_a_transform(
    dataset: CocoDataset, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noise(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return (image // 2 + generator.integers(0, 100, image.shape)).astype(np.uint8)

    monkeypatch.setitem(PIXEL_CHANGES, "noise", noise)
    config.data.augment.transforms = [{"short_side": {}}, {"noise": {"p": 1.0}}]
    assert_same(first(2, dataset, config), first(2, dataset, config))
    monkeypatch.setitem(PIXEL_CHANGES, "noise", lambda image, generator: image[::2])
    with pytest.raises(UserError, match=r"noise made of an image of shape .*, one of shape"):
        _ = training_batches(dataset, config, start_step=0, rank=0, world_size=1)


def test_an_unreadable_partner_makes_a_blank_and_is_counted_once(
    folder: Path, dataset: CocoDataset, config: Config
) -> None:
    path = folder / "2.png"
    whole = path.read_bytes()
    _ = path.write_bytes(whole[:60])
    try:
        config.data.augment.transforms = [{"mosaic": {}}]
        config.data.on_bad_image, config.data.max_bad_fraction = "skip", 0.3
        batches = first(6, dataset, config)
        problems = {problem for loaded in batches for problem in loaded.unreadable.values()}
        assert len(problems) == 1
        assert "2.png" in problems.pop()
    finally:
        _ = path.write_bytes(whole)


def test_the_table_of_the_docs_has_every_argument_with_its_default() -> None:
    page = (Path(__file__).parents[3] / "docs/augmentation.md").read_text(encoding="utf-8")
    for name, kind in TRANSFORMS.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        arguments = [f"`{each}: {shown(key.default)}`" for each, key in declared(kind).items() if isinstance(key, Key)]
        assert row.split(" | ")[2] == ", ".join(arguments)
    for name in PRESETS:
        assert f"| `{name}` |" in page
