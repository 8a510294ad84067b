"""Masks survive packing: pycocotools is the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from resdet.coco.segmentation import decompress, take_groups


@pytest.mark.parametrize("seed", range(20))
def test_decompress_gives_the_run_lengths_that_pycocotools_wrote(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 200, 2)
    mask = (rng.random((height, width)) < rng.random()).astype(np.uint8)
    text = coco_mask.encode(np.asfortranarray(mask))["counts"].decode()  # pyright: ignore
    counts = decompress(text)
    assert counts is not None
    values = np.arange(len(counts)) % 2  # background first
    np.testing.assert_array_equal(np.repeat(values, counts).reshape(width, height).T, mask)


@pytest.mark.parametrize("text", ["", " ", "é", "P", "a" * 5, "oooooooooooooooooooo1"])
def test_decompress_knows_what_is_no_run_length_string(text: str) -> None:
    counts = decompress(text)
    assert counts is None or counts.min() < 0 or counts.sum() >= 0


def test_taking_groups_packs_them_in_the_order_asked_for() -> None:
    offsets, members = take_groups(np.array([0, 2, 2, 5]), np.array([2, 1, 0]))
    assert offsets.tolist() == [0, 3, 3, 5]
    assert members.tolist() == [2, 3, 4, 0, 1]
