"""The necks, by pencil: layers are set to the identity, so that only the paths between levels are left."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from resdet.models.necks import ConvLevels, FeaturePyramidNetwork, PathAggregationNetwork, SingleLevel, SubsampledLevel

STRIDES = (4, 8, 16, 32)


def ones() -> list[Tensor]:
    return [torch.ones(1, 2, size, size) for size in (16, 8, 4, 2)]


def passing_on(neck: FeaturePyramidNetwork) -> FeaturePyramidNetwork:
    """Every convolution copies its input: the middle cell, channel by channel."""
    for module in neck.modules():
        if isinstance(module, nn.Conv2d):
            _ = nn.init.dirac_(module.weight)
    return neck


def values(levels: list[Tensor]) -> list[float]:
    assert all((level == level.flatten()[0]).all() for level in levels)
    return [level.flatten()[0].item() for level in levels]


def test_a_level_of_the_pyramid_is_the_sum_of_all_coarser_ones() -> None:
    neck = passing_on(FeaturePyramidNetwork([2] * 4, STRIDES, 2, extra=SubsampledLevel()))
    assert values(neck(ones())) == [4, 3, 2, 1, 1]
    assert neck.strides == (4, 8, 16, 32, 64)


def test_path_aggregation_adds_the_finer_levels_again() -> None:
    neck = passing_on(PathAggregationNetwork([2] * 4, STRIDES, 2, extra=SubsampledLevel()))
    assert values(neck(ones())) == [4, 4 + 3, 4 + 3 + 2, 4 + 3 + 2 + 1, 10]


def test_p6_and_p7_by_convolution_halve_the_map_twice() -> None:
    neck = FeaturePyramidNetwork([2] * 4, STRIDES, 2, extra=ConvLevels(2))
    levels = neck(ones())
    assert [level.shape[-1] for level in levels] == [16, 8, 4, 2, 1, 1]
    assert neck.strides == (4, 8, 16, 32, 64, 128)
    assert not torch.equal(levels[4], levels[5])


@pytest.mark.parametrize("network", [FeaturePyramidNetwork, PathAggregationNetwork])
@pytest.mark.parametrize("sizes", [(19, 10, 5, 3), (19, 9, 4, 2)], ids=["rounded up", "rounded down"])
def test_maps_of_odd_sizes_fit(network: type[FeaturePyramidNetwork], sizes: tuple[int, ...]) -> None:
    neck = network([3, 4, 5, 6], STRIDES, 2, extra=SubsampledLevel())
    maps = [torch.randn(1, 3 + level, size, size) for level, size in enumerate(sizes)]
    assert [level.shape[2] for level in neck(maps)][:4] == list(sizes)


@pytest.mark.parametrize("network", [FeaturePyramidNetwork, PathAggregationNetwork])
def test_a_norm_takes_the_place_of_each_bias(network: type[FeaturePyramidNetwork]) -> None:
    neck = network([2] * 4, STRIDES, 2, extra=SubsampledLevel(), norm=nn.BatchNorm2d)
    convs = [module for module in neck.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in neck.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(convs) == len(norms)
    assert all(conv.bias is None for conv in convs)


def test_a_single_level_is_the_map_itself() -> None:
    neck = SingleLevel(2, channels=2, stride=16)
    maps = ones()
    (level,) = neck(maps)
    assert_close(level, maps[2])
    assert neck.strides == (16,)
