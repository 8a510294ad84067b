"""Entries of dense lists and images, chosen and set to zero, with a pencil."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from resdet.ops.dense import constants, inside, of_class, take, zero_padding

NAN, INF = float("nan"), float("inf")


def test_rows_are_taken_in_the_order_of_their_positions() -> None:
    values = torch.tensor([[[1.0, 2], [3, 4], [5, 6]], [[7, 8], [9, 10], [11, 12]]])
    index = torch.tensor([[2, 0], [1, 1]])
    assert take(values, index).tolist() == [[[5, 6], [1, 2]], [[9, 10], [9, 10]]]
    assert take(values[..., 0], index).tolist() == [[5, 1], [9, 9]]


def test_constants_are_those_numbers_of_another_tensors_type() -> None:
    assert_close(constants([1, 0.7], torch.zeros(3)), torch.tensor([1.0, 0.7]), rtol=0, atol=0)
    assert constants([7, 2**40], torch.zeros(3, dtype=torch.int64)).tolist() == [7, 2**40]


def test_a_list_without_rows_gives_zeros() -> None:
    assert take(torch.zeros(2, 0, 4), torch.zeros(2, 3, dtype=torch.int64)).tolist() == torch.zeros(2, 3, 4).tolist()


def test_padding_is_zero_whatever_it_held() -> None:
    values = torch.tensor([[[NAN, 1], [2, INF], [-INF, 3]]])
    valid = torch.tensor([[False, True, False]])
    assert zero_padding(values, valid).tolist() == [[[0, 0], [2, INF], [0, 0]]]
    assert zero_padding(torch.tensor([[7, 8, 9]]), valid).tolist() == [[0, 8, 0]]


def test_padding_has_no_gradient_and_the_rest_all_of_it() -> None:
    values = torch.tensor([[NAN, 1.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(zero_padding(values, torch.tensor([[False, True]])).sum(), values)
    assert gradient.tolist() == [[0, 1]]


def test_a_region_gets_what_belongs_to_its_class() -> None:
    values = torch.tensor([[[[1.0, 1], [2, 2]], [[3, 3], [4, 4]]]])  # two regions, two classes
    assert of_class(values, torch.tensor([[1, 0]])).tolist() == [[[2, 2], [3, 3]]]


def test_what_is_one_for_all_classes_serves_each_and_the_background() -> None:
    assert of_class(torch.tensor([[[5.0], [6.0]]]), torch.tensor([[0, 9]])).tolist() == [[5, 6]]


def test_pixels_of_an_image_lie_above_its_height_and_left_of_its_width() -> None:
    pixels = inside(torch.tensor([[1, 2], [2, 3]]), height=2, width=3)
    assert_close(pixels[:, 0].int(), torch.tensor([[[1, 1, 0], [0, 0, 0]], [[1, 1, 1], [1, 1, 1]]]).int())
