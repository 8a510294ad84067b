import torch
from torch.testing import assert_close
from torchvision.ops import batched_nms as torchvision_batched_nms

from resdet.ops.nms import batched_nms


def candidates(images: int = 3, count: int = 120) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(images, count, 2, generator=generator) * 60
    boxes = torch.cat([corner, corner + 10 + torch.rand(images, count, 2, generator=generator) * 30], dim=-1)
    scores = torch.rand(images, count, generator=generator)
    return boxes, scores, torch.randint(0, 4, (images, count), generator=generator)


def test_equals_torchvision_image_by_image() -> None:
    boxes, scores, groups = candidates()
    valid = torch.ones_like(groups, dtype=torch.bool)
    index, real = batched_nms(boxes, scores, groups, valid, iou_threshold=0.4, keep=100)
    for image in range(3):
        expected = torchvision_batched_nms(boxes[image], scores[image], groups[image], 0.4)[:100]
        assert_close(index[image][real[image]], expected)


def test_only_the_best_are_kept_in_order() -> None:
    boxes, scores, groups = candidates()
    valid = torch.ones_like(groups, dtype=torch.bool)
    many, _ = batched_nms(boxes, scores, groups, valid, iou_threshold=0.4, keep=100)
    few, real = batched_nms(boxes, scores, groups, valid, iou_threshold=0.4, keep=5)
    assert real.all()
    assert_close(few, many[:, :5])


def test_what_is_not_valid_neither_survives_nor_suppresses() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 9]]])
    scores = torch.tensor([[0.9, 0.8]])
    groups = torch.zeros(1, 2, dtype=torch.int64)
    index, real = batched_nms(boxes, scores, groups, torch.tensor([[False, True]]), iou_threshold=0.5, keep=2)
    assert index.tolist() == [[1, 0]]
    assert real.tolist() == [[True, False]]


def test_an_image_without_candidates_gives_nothing() -> None:
    boxes, scores, groups = candidates(images=1)
    _, real = batched_nms(boxes, scores, groups, torch.zeros_like(groups, dtype=torch.bool), iou_threshold=0.5, keep=4)
    assert not real.any()


def test_a_list_without_entries_gives_nothing() -> None:
    boxes, groups = torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.int64)
    _, real = batched_nms(boxes, torch.zeros(2, 0), groups, groups > 0, iou_threshold=0.5, keep=3)
    assert real.tolist() == [[False] * 3] * 2


def test_of_equal_scores_the_first_position_is_best_whatever_the_groups() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]]])
    valid = torch.ones(1, 3, dtype=torch.bool)
    index, _ = batched_nms(boxes, torch.full((1, 3), 0.5), torch.tensor([[2, 0, 1]]), valid, iou_threshold=0.5, keep=3)
    assert index.tolist() == [[0, 1, 2]]
