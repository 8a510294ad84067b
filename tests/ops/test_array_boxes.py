import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou

from resdet.ops.array_boxes import best_anchor_iou, paired_iou

BOX = st.tuples(*[st.integers(0, 20)] * 4)


def boxes(*rows: tuple[int, ...]) -> np.ndarray:
    return np.array(rows, np.float64).reshape(-1, 4)


def corners(rows: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:]], axis=1))


def test_half_of_each_of_two_boxes():
    assert paired_iou(boxes((0, 0, 2, 1)), boxes((1, 0, 2, 1))).tolist() == [1 / 3]


def test_a_crowd_region_counts_what_lies_in_it():
    pairs = boxes((0, 0, 2, 1), (0, 0, 2, 1)), boxes((1, 0, 9, 9), (1, 0, 9, 9))
    assert paired_iou(*pairs, np.array([True, False])).tolist() == [0.5, 1 / 82]


def test_boxes_without_an_area_overlap_nothing():
    assert paired_iou(boxes((3, 3, 0, 0), (0, 0, 0, 5)), boxes((3, 3, 0, 0), (0, 0, 9, 9))).tolist() == [0, 0]


@given(st.lists(st.tuples(BOX, BOX).filter(lambda pair: all(box[2] * box[3] for box in pair)), max_size=8))
def test_overlaps_are_torchvisions(pairs: list[tuple[tuple[int, ...], tuple[int, ...]]]):
    first, second = (boxes(*column) for column in (zip(*pairs, strict=True) if pairs else ((), ())))
    ours = paired_iou(first, second)
    theirs = box_iou(corners(first), corners(second)).diagonal().numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_an_anchor_of_the_object_s_size_and_ratio_is_the_object():
    """Height over width 2 and area 32 * 32: 22.6 wide, 45.3 high."""
    wide, high = np.array([32 / np.sqrt(2), 64.0]), np.array([32 * np.sqrt(2), 64.0])
    assert best_anchor_iou(wide, high, [32.0], [2.0])[0] == pytest.approx(1)
    assert best_anchor_iou(wide, high, [32.0], [1.0])[1] == pytest.approx(0.25)


@given(st.tuples(*[st.floats(1, 500)] * 4))
def test_the_overlap_with_an_anchor_is_that_of_boxes_with_one_centre(sides: tuple[float, ...]):
    width, height, size, ratio = *sides[:3], sides[3] / 100
    across, down = size / np.sqrt(ratio), size * np.sqrt(ratio)
    pair = np.array([[-width / 2, -height / 2, width, height]]), np.array([[-across / 2, -down / 2, across, down]])
    best = best_anchor_iou(np.array([width]), np.array([height]), [size], [ratio])
    assert best[0] == pytest.approx(paired_iou(*pair)[0], abs=1e-9)
