"""Run-length encodings: the sound ones pass unchanged, the others never reach compiled code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as pycocotools_mask

from resdet.coco.run_lengths import checked_masks, compress, decode, decode_one, encode_pixels, mask_areas
from resdet.errors import UserError

coco_mask: Any = pycocotools_mask


def encoded(height: int, width: int, seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    pixels = (random.random((height, width)) < random.random()).astype(np.uint8)
    return coco_mask.encode(np.asfortranarray(pixels))


def test_sound_masks_pass_unchanged_and_have_the_area_of_pycocotools() -> None:
    sizes = [(1 + seed % 30, 1 + seed % 41) for seed in range(300)]
    masks = [encoded(*size, seed) for seed, size in enumerate(sizes)]
    checked = checked_masks(masks, sizes, str)
    assert [mask["counts"] for mask in checked] == [mask["counts"] for mask in masks]
    assert mask_areas(checked).tolist() == [int(coco_mask.area(mask)) for mask in masks]


@pytest.mark.parametrize("seed", range(20))
def test_decode_gives_the_run_lengths_that_pycocotools_wrote(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 200, 2)
    masks = [(rng.random((height, width)) < rng.random()).astype(np.uint8) for _ in range(3)]
    runs, faults = decode([coco_mask.encode(np.asfortranarray(mask))["counts"] for mask in masks])
    assert faults == {}
    for index, mask in enumerate(masks):
        values = np.arange(len(runs[index])) % 2  # background first
        np.testing.assert_array_equal(np.repeat(values, runs[index]).reshape(width, height).T, mask)


def test_strings_that_are_no_numbers_leave_the_others_as_they_are() -> None:
    sound = coco_mask.encode(np.asfortranarray(np.eye(9, dtype=np.uint8)))["counts"]
    runs, faults = decode([b"", sound, "\xe9".encode(), b"P", b"o" * 20 + b"1", sound])
    assert faults == {
        0: "it is empty",
        2: "a character is out of range",
        3: "it is cut off",
        4: "a run is longer than any image",
    }
    assert runs[1].tolist() == runs[5].tolist() == decode([sound])[0][0].tolist()
    assert [len(runs[index]) for index in (0, 2, 3, 4)] == [0] * 4
    assert runs.areas().tolist() == [0, 9, 0, 0, 0, 9]


def test_no_masks_are_no_masks() -> None:
    assert checked_masks([], [], str) == []
    assert mask_areas([]).tolist() == []


def test_run_lengths_may_be_numbers_strings_or_bytes() -> None:
    runs = [3, 2, 1, 5, 1]  # 3 off, 2 on, 1 off, 5 on, 1 off: 7 of 12 pixels
    packed = coco_mask.frPyObjects({"size": [3, 4], "counts": runs}, 3, 4)["counts"]
    for counts in (runs, packed, packed.decode()):
        mask = checked_masks([{"size": [3, 4], "counts": counts}], [(3, 4)], str)[0]
        assert mask == {"size": [3, 4], "counts": packed}
        assert mask_areas([mask]).tolist() == [7]


def test_empty_runs_inside_are_merged() -> None:
    """3 off, 0 on, 2 off, 7 on is 5 off, 7 on; an empty first run says that the mask starts at once."""
    for runs, merged in (([3, 0, 2, 7], [5, 7]), ([0, 5, 0, 0, 0, 7, 0], [0, 12]), ([12, 0, 0], [12])):
        masks = checked_masks([{"size": [3, 4], "counts": counts} for counts in (runs, merged)], [(3, 4)] * 2, str)
        assert masks[0] == masks[1]


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "not a run-length encoding with size and counts"),
        ([[0, 0, 5, 0, 5, 5]], "not a run-length encoding"),
        ({"counts": "0X6"}, "not a run-length encoding"),
        ({"size": [4, 3], "counts": [12]}, r"size is \[4, 3\] but its image has \(height, width\) \[3, 4\]"),
        ({"size": 12, "counts": [12]}, "size is 12"),
        ({"size": [3, 4], "counts": [11]}, "add up to 11, not to 3x4"),
        ({"size": [3, 4], "counts": [13, -1]}, "neither run lengths nor"),
        ({"size": [3, 4], "counts": [6.5, 5.5]}, "neither run lengths nor"),
        ({"size": [3, 4], "counts": None}, "neither run lengths nor"),
        ({"size": [3, 4], "counts": "ä"}, "neither run lengths nor"),
        ({"size": [3, 4], "counts": ""}, "it is empty"),
        ({"size": [3, 4], "counts": "garbage!"}, "a character is out of range"),
        ({"size": [3, 4], "counts": "P"}, "it is cut off"),
        ({"size": [3, 4], "counts": "o" * 40 + "0"}, "longer than any image"),
        ({"size": [3, 4], "counts": "O="}, "a run length is negative"),
        ({"size": [3, 4], "counts": "11"}, "do not add up"),
    ],
)
def test_an_unsound_mask_is_refused_by_name(segmentation: Any, message: str) -> None:
    sound = {"size": [3, 4], "counts": [12]}
    with pytest.raises(UserError, match=rf"result 1: .*{message}"):
        _ = checked_masks([sound, segmentation, sound], [(3, 4)] * 3, "result {}".format)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' decode
@given(st.binary(min_size=1, max_size=12), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=300, deadline=None)
def test_whatever_passes_decodes_to_its_own_size(counts: bytes, height: int, width: int) -> None:
    counts = bytes(48 + byte % 64 for byte in counts)
    try:
        mask = checked_masks([{"size": [height, width], "counts": counts}], [(height, width)], str)[0]
    except UserError:
        return
    pixels = coco_mask.decode(mask)
    assert pixels.shape == (height, width)
    assert set(np.unique(pixels)) <= {0, 1}
    assert pixels.sum() == mask_areas([mask])[0]


def test_a_number_of_eight_characters_is_longer_than_any_image() -> None:
    assert decode([b"o" * 7 + b"1"])[1] == {0: "a run is longer than any image"}
    assert decode([b"o" * 6 + b"1"])[1] == {}


@pytest.mark.parametrize(("rows", "columns"), [(3, 2), (3, 1), (2, 2), (1, 4)])
def test_the_runs_of_a_window_are_those_of_the_whole_image(rows: int, columns: int) -> None:
    """Also where the window is as high as the image, so that an object goes on in the next column."""
    whole = np.zeros((3, 4), np.uint8)
    whole[:rows, :columns] = 1
    ours = encode_pixels(whole[:rows, :columns].astype(bool), 0, 0, 3, 4)
    assert ours["counts"] == coco_mask.encode(np.asfortranarray(whole))["counts"]


def test_runs_of_length_0_are_taken_out_for_pycocotools_whose_union_ends_there() -> None:
    (mask,) = checked_masks([{"size": [3, 4], "counts": compress([np.array([1, 2, 0, 3, 6])])[0]}], [(3, 4)], str)
    (whole,) = checked_masks([{"size": [3, 4], "counts": [1, 5, 6]}], [(3, 4)], str)
    assert mask == whole


@given(st.lists(st.integers(0, 70_000), min_size=1, max_size=40))
def test_one_string_is_decoded_as_among_many(numbers: list[int]) -> None:
    (string,) = compress([np.array(numbers, np.int64)])
    assert decode_one(string).tolist() == decode([string])[0][0].tolist() == numbers
