"""torchvision's kernels are the oracle, level by level; the operators must be sound ones for a compiler."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torchvision.ops import roi_align as torchvision_roi_align
from torchvision.ops import roi_pool as torchvision_roi_pool

from resdet.ops import roi_kernels
from resdet.ops.roi_align import assign_levels, roi_align

STRIDES = (4, 8, 16, 32)
Pooled = Callable[..., Tensor]

aligned = partial(roi_align, resolution=5, sampling_ratio=0, aligned=True)
unaligned = partial(roi_align, resolution=5, sampling_ratio=0, aligned=False)
pooled = partial(roi_kernels.roi_pool, resolution=5)
CASES = [
    pytest.param(aligned, partial(torchvision_roi_align, output_size=5, aligned=True), id="aligned"),
    pytest.param(unaligned, partial(torchvision_roi_align, output_size=5, aligned=False), id="unaligned"),
    pytest.param(pooled, partial(torchvision_roi_pool, output_size=5), id="pool"),
]


def pyramid(levels: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(48, 61), (24, 31), (12, 16), (6, 8)]
    return [torch.randn(2, 3, *size, generator=generator).requires_grad_() for size in sizes[:levels]]


def regions(count: int = 40) -> Tensor:
    """Boxes of all sizes; some reach out of the image, one is empty."""
    generator = torch.Generator().manual_seed(1)
    corner = torch.rand(2, count, 2, generator=generator) * 250 - 20
    boxes = torch.cat([corner, corner + torch.rand(2, count, 2, generator=generator) ** 3 * 260], dim=-1)
    boxes[1, -1] = 0
    return boxes


@pytest.mark.parametrize("levels", [1, 4])
@pytest.mark.parametrize(("ours", "theirs"), CASES)
def test_equals_torchvision_and_so_does_the_gradient(ours: Pooled, theirs: Pooled, levels: int) -> None:
    maps, boxes = pyramid(levels), regions()
    of_level = assign_levels(boxes, 2, 1 + levels) - 2
    mine = ours(maps, STRIDES[:levels], boxes, of_level)
    expected = torch.zeros_like(mine)
    for level, (feature, stride) in enumerate(zip(maps, STRIDES, strict=False)):
        regions_of_level = theirs(feature, list(boxes), spatial_scale=1 / stride)
        expected = torch.where((of_level == level).flatten()[:, None, None, None], regions_of_level, expected)
    assert_close(mine, expected)
    weight = torch.randn(mine.shape, generator=torch.Generator().manual_seed(2))
    for gradient, wanted in zip(
        torch.autograd.grad((mine * weight).sum(), maps), torch.autograd.grad((expected * weight).sum(), maps),
        strict=True,
    ):  # fmt: skip
        assert_close(gradient, wanted)


def test_a_map_without_regions_gets_a_gradient_of_zero() -> None:
    maps, boxes = pyramid(2), regions()
    for pool in (aligned, pooled):
        result = pool(maps, STRIDES[:2], boxes, torch.zeros(2, 40, dtype=torch.int64))
        assert not torch.autograd.grad(result.sum(), maps)[1].any()


def test_a_bin_of_roi_pool_is_its_largest_cell() -> None:
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    boxes = torch.tensor([[[0.0, 0, 28, 28]]])  # cells 0 to 7: RoIPool counts the last one too
    result = roi_kernels.roi_pool([ramp], (4,), boxes, torch.zeros(1, 1, dtype=torch.int64), resolution=4)
    assert_close(result[0, 0, 0], torch.tensor([1.0, 3, 5, 7]))


def test_adaptive_sampling_takes_one_sample_a_cell() -> None:
    """Bins of three cells: the same as a fixed ratio of 3."""
    maps, boxes = pyramid(1), torch.tensor([[[8.0, 8, 68, 68]], [[20, 4, 80, 64]]])
    zero = torch.zeros(2, 1, dtype=torch.int64)
    fixed = roi_align(maps, (4,), boxes, zero, resolution=5, sampling_ratio=3)
    assert_close(aligned(maps, (4,), boxes, zero), fixed, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pool", [aligned, pooled])
def test_bfloat16_maps_give_bfloat16_regions(pool: Pooled) -> None:
    maps, boxes = pyramid(1), regions()
    zero = torch.zeros(2, 40, dtype=torch.int64)
    half = pool([maps[0].bfloat16()], (4,), boxes, zero)
    assert half.dtype == torch.bfloat16
    assert_close(half.float(), pool([maps[0].bfloat16().float()], (4,), boxes, zero), atol=0.02, rtol=0.01)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # opcheck's own
@pytest.mark.parametrize("levels", [1, 2])
def test_the_operators_keep_the_rules_of_operators(levels: int) -> None:
    boxes = regions(6)
    arguments = (pyramid(levels), roi_kernels._with_image(boxes), (assign_levels(boxes, 2, 1 + levels) - 2).flatten())
    scales = [1 / stride for stride in STRIDES[:levels]]
    for operator, options in ((roi_kernels._align, (3, 0, True)), (roi_kernels._pool, (3,))):
        result = torch.library.opcheck(operator, (*arguments, scales, *options))
        assert set(result.values()) == {"SUCCESS"}
