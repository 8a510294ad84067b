import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou

from resdet.ops.array_boxes import paired_iou

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
