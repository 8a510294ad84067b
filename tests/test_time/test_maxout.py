"""Which two scales a region takes, and what it takes from them."""

from __future__ import annotations

from functools import partial

import torch
from torch.testing import assert_close

from resdet.models.second_stage.roi_pooler import RoIPooler
from resdet.ops.roi_align import roi_align
from resdet.ops.roi_kernels import roi_pool
from resdet.test_time.maxout import maxout_pool, nearest_scales

BOXES = torch.tensor([[[0.0, 0.0, 64.0, 64.0], [10.0, 20.0, 40.0, 50.0]]])


def square(side: float) -> torch.Tensor:
    return torch.tensor([[[0.0, 0.0, side, side]]])


def test_a_region_takes_the_two_scales_nearest_to_224_pixels() -> None:
    factors = [200 / 600, 400 / 600, 1.0, 800 / 600, 1000 / 600]
    assert nearest_scales(square(224), factors).tolist() == [[[2, 1]]]  # areas 50176 and 22300; the next is 89202
    assert nearest_scales(square(600), factors).tolist() == [[[0, 1]]]  # 200 and 400 pixels high
    assert nearest_scales(square(20), factors).tolist() == [[[4, 3]]]
    assert nearest_scales(square(20), [1.0]).tolist() == [[[0]]]


def pyramid(stride: int, size: int, value: float | None = None) -> list[torch.Tensor]:
    """Levels at `stride` and twice that."""
    generator = torch.Generator().manual_seed(size)
    shapes = [(1, 3, size // stride, size // stride), (1, 3, size // stride // 2, size // stride // 2)]
    return [torch.rand(shape, generator=generator) if value is None else torch.full(shape, value) for shape in shapes]


def test_one_scale_is_plain_pooling() -> None:
    for pooling in (partial(roi_align, resolution=3), partial(roi_pool, resolution=3)):
        pooler, maps = RoIPooler((4, 8), pooling), pyramid(4, 64)
        assert_close(maxout_pool(pooler, [maps], [1.0], BOXES), pooler(maps, BOXES))


def test_a_lone_scale_is_pooled_from_the_enlarged_box() -> None:
    pooler, maps = RoIPooler((4, 8), partial(roi_align, resolution=3)), pyramid(4, 128)
    assert_close(maxout_pool(pooler, [maps], [2.0], BOXES), pooler(maps, BOXES * 2))


def test_the_larger_value_wins_element_by_element() -> None:
    pooler = RoIPooler((4, 8), partial(roi_align, resolution=3))
    small, large = pyramid(4, 64), pyramid(4, 128)
    expected = torch.maximum(pooler(small, BOXES), pooler(large, BOXES * 2))
    assert_close(maxout_pool(pooler, [small, large], [1.0, 2.0], BOXES), expected)


def test_a_scale_that_is_not_adjacent_has_no_say() -> None:
    pooler = RoIPooler((4, 8), partial(roi_pool, resolution=3))
    scales = [pyramid(4, 64, value=9.0), pyramid(4, 128, value=1.0), pyramid(4, 256, value=2.0)]
    pooled = maxout_pool(pooler, scales, [1.0, 2.0, 4.0], BOXES)  # 64 pixels and less: the two largest scales
    assert_close(pooled, torch.full_like(pooled, 2.0))
