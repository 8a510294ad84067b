"""NMS on a GPU gives what the CPU gives, bit for bit, whatever the boxes, scores and groups are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from resdet.ops.nms import _padded_nms

pytestmark = pytest.mark.gpu

Candidates = tuple[Tensor, Tensor, Tensor, Tensor]


def random_candidates(images: int, count: int, groups: int, seed: int = 0) -> Candidates:
    """Boxes that overlap much, one in five of them not valid."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(images, count, 2, generator=generator) * 60
    boxes = torch.cat([corner, corner + 10 + torch.rand(images, count, 2, generator=generator) * 30], dim=-1)
    scores = torch.rand(images, count, generator=generator)
    group = torch.randint(0, groups, (images, count), generator=generator)
    return boxes, scores, group, torch.rand(images, count, generator=generator) > 0.2


def tied(candidates: Candidates) -> Candidates:
    """Five different scores, some of them minus zero, and boxes many of which are the same."""
    boxes, scores, groups, valid = candidates
    return (boxes / 8).round() * 8, (scores * 4 - 2).round() / 4, groups, valid


def chain(length: int) -> Candidates:
    """Each box overlaps its neighbours alone: every second one stays, and which ones is known at the end only."""
    left = torch.arange(length, dtype=torch.float32) * 4
    boxes = torch.stack([left, torch.zeros_like(left), left + 10, torch.full_like(left, 10.0)], dim=-1)
    scores = torch.linspace(1, 0.5, length)
    return boxes[None], scores[None], torch.zeros(1, length, dtype=torch.int64), torch.ones(1, length, dtype=torch.bool)


def blocks(*sizes: int) -> Candidates:
    """Groups of these sizes, whose numbers are far apart."""
    boxes, scores, _, _ = random_candidates(1, sum(sizes), 1)
    groups = torch.repeat_interleave(torch.arange(len(sizes)) * 1_003, torch.tensor(sizes))
    shuffled = torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(1))
    return boxes, scores, groups[shuffled][None], torch.ones(1, sum(sizes), dtype=torch.bool)


def without_area(candidates: Candidates) -> Candidates:
    """A third of the boxes are points, whose overlap with one another is 0 / 0."""
    boxes, scores, groups, valid = candidates
    boxes[:, ::3, 2:] = boxes[:, ::3, :2]
    return boxes, scores, groups, valid


def one_empty_image(candidates: Candidates) -> Candidates:
    candidates[3][1] = False
    return candidates


CASES = {
    "random": lambda: random_candidates(3, 200, 4),
    "ties": lambda: tied(random_candidates(2, 300, 3)),
    "all the same": lambda: tuple(
        values[:, :1].expand_as(values).contiguous() for values in random_candidates(2, 150, 1)
    ),
    "80 classes of few": lambda: random_candidates(2, 400, 80),
    "more groups than boxes": lambda: random_candidates(1, 100, 1203),
    "one group of 1,000s": lambda: random_candidates(1, 1500, 1),
    "groups that end where blocks end": lambda: blocks(64, 64, 128, 1, 63, 65, 1, 1, 130),
    "a chain": lambda: chain(130),
    "boxes without area": lambda: without_area(random_candidates(2, 150, 2)),
    "an image without candidates": lambda: one_empty_image(random_candidates(2, 70, 2)),
    "one candidate": lambda: random_candidates(1, 1, 1),
    "none": lambda: random_candidates(2, 0, 1),
    "large coordinates": lambda: (random_candidates(1, 200, 2)[0] * 1e4, *random_candidates(1, 200, 2)[1:]),
}


def on_device(candidates: Candidates, iou_threshold: float, keep: int, device: torch.device) -> Tensor:
    """By the operator on a GPU, by the kernel itself on the CPU."""
    if device.type == "cuda":
        return _padded_nms(*(values.to(device) for values in candidates), iou_threshold, keep)
    from resdet.ops.kernels.nms import padded_nms

    return padded_nms(*candidates, iou_threshold, keep)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_cpu_bit_for_bit(case: str, dtype: torch.dtype, device: torch.device) -> None:
    boxes, scores, groups, valid = CASES[case]()
    candidates = (boxes.to(dtype), scores.to(dtype), groups, valid)
    for iou_threshold, keep in ((0.5, 1000), (0.7, 20)):
        expected = _padded_nms(*candidates, iou_threshold, keep)
        assert torch.equal(on_device(candidates, iou_threshold, keep, device).cpu(), expected)


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_cpu_on_random_boxes(seed: int, device: torch.device) -> None:
    candidates = random_candidates(2, 90 + 40 * seed, 1 + 2 * seed, seed)
    assert torch.equal(on_device(candidates, 0.6, 50, device).cpu(), _padded_nms(*candidates, 0.6, 50))


def test_an_overlap_equal_to_the_threshold_stays(device: torch.device) -> None:
    """Half of the first box: 0.5 is not above 0.5. A tenth is above the number below 0.1 that float64 rounds to."""
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 1]]])
    candidates = (boxes, torch.tensor([[3.0, 2, 1]]), torch.zeros(1, 3).long(), torch.ones(1, 3).bool())
    assert on_device(candidates, 0.5, 3, device).tolist() == [[0, 1, 2]]
    expected = _padded_nms(*candidates, 0.1, 3)
    assert torch.equal(on_device(candidates, 0.1, 3, device).cpu(), expected)


def test_a_batch_is_its_images(device: torch.device) -> None:
    boxes, scores, groups, valid = random_candidates(3, 130, 5)
    together = on_device((boxes, scores, groups, valid), 0.5, 60, device)
    for image in range(3):
        one = slice(image, image + 1)
        alone = on_device((boxes[one], scores[one], groups[one], valid[one]), 0.5, 60, device)
        assert torch.equal(alone[0], together[image])
