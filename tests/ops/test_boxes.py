import torch
from torch.testing import assert_close
from torchvision.ops import box_iou as torchvision_iou

from resdet.ops.boxes import box_area, box_iou, clip_boxes, iou_and_union, is_nonempty, shared_area


def random_boxes(*shape: int) -> torch.Tensor:
    corners = torch.rand(*shape, 2, 2, generator=torch.Generator().manual_seed(0)) * 100
    return torch.cat([corners.amin(-2), corners.amax(-2)], dim=-1)


def test_the_area_is_width_times_height() -> None:
    assert_close(box_area(torch.tensor([[1.0, 2.0, 4.0, 6.0], [0, 0, 0, 5], [3, 3, 1, 1]])), torch.tensor([12.0, 0, 0]))


def test_half_overlapping_squares_have_iou_one_third() -> None:
    first, second = torch.tensor([[[0.0, 0, 2, 2]]]), torch.tensor([[[1.0, 0, 3, 2]]])
    assert_close(box_iou(first, second), torch.tensor([[[1 / 3]]]))


def test_two_empty_boxes_have_iou_zero() -> None:
    empty = torch.zeros(1, 1, 4)
    assert_close(box_iou(empty, empty), torch.zeros(1, 1, 1))


def test_the_iou_of_pairs_is_the_diagonal_of_that_of_all() -> None:
    first, second = random_boxes(1, 7), random_boxes(1, 14)[:, 7:]
    iou, union = iou_and_union(first, second)
    assert_close(iou[0], box_iou(first, second)[0].diagonal())
    assert_close(iou * union, shared_area(first, second))


def test_empty_boxes_have_a_finite_gradient() -> None:
    empty = torch.full((1, 4), 3.0, requires_grad=True)
    (gradient,) = torch.autograd.grad(iou_and_union(empty, torch.full((1, 4), 3.0))[0].sum(), empty)
    assert gradient.isfinite().all()


def test_iou_equals_torchvision_for_every_image() -> None:
    first, second = random_boxes(3, 20), random_boxes(3, 7)
    expected = torch.stack([torchvision_iou(a, b) for a, b in zip(first, second, strict=True)])
    assert_close(box_iou(first, second), expected)


def test_iou_of_shared_candidates_equals_iou_of_each_image() -> None:
    shared, boxes = random_boxes(1, 20), random_boxes(3, 7)
    assert_close(box_iou(shared, boxes), box_iou(shared.expand(3, -1, -1), boxes))


def test_boxes_are_clipped_to_their_own_image() -> None:
    boxes = torch.tensor([[[-5.0, -5, 50, 50]], [[-5.0, -5, 50, 50]]])
    clipped = clip_boxes(boxes, torch.tensor([[30, 40], [60, 20]]))
    assert_close(clipped, torch.tensor([[[0.0, 0, 40, 30]], [[0.0, 0, 20, 50]]]))


def test_a_box_without_width_or_height_is_empty() -> None:
    boxes = torch.tensor([[0.0, 0, 1, 1], [0, 0, 0, 1], [2, 0, 1, 1]])
    assert is_nonempty(boxes).tolist() == [True, False, False]
