import pytest
import torch
from torch.testing import assert_close
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops import roi_align as torchvision_roi_align

from resdet.ops.roi_align import assign_levels, roi_align

STRIDES = (4, 8, 16, 32)


def pyramid(images: int = 2, channels: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(48, 61), (24, 31), (12, 16), (6, 8)]
    return [torch.randn(images, channels, *size, generator=generator, dtype=torch.float64) for size in sizes]


def regions(images: int = 2, count: int = 40) -> torch.Tensor:
    """Boxes of all sizes; some reach far out of the image."""
    generator = torch.Generator().manual_seed(1)
    corner = torch.rand(images, count, 2, generator=generator) * 300 - 40
    return torch.cat([corner, corner + torch.rand(images, count, 2, generator=generator) ** 3 * 260], dim=-1)


def test_a_constant_map_pools_to_the_constant() -> None:
    boxes = torch.tensor([[[4.0, 4, 28, 28]]])
    pooled = roi_align([torch.full((1, 2, 16, 16), 3.0)], (4,), boxes, torch.zeros(1, 1).long(), resolution=7)
    assert_close(pooled, torch.full((1, 2, 7, 7), 3.0))


def test_a_ramp_pools_to_the_centres_of_the_bins() -> None:
    # The map's value is its column, whose cell has its centre half a cell to the right: aligned sampling subtracts it.
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    boxes = torch.tensor([[[8.0, 8, 40, 40]]])
    pooled = roi_align([ramp], (4,), boxes, torch.zeros(1, 1).long(), resolution=4)
    assert_close(pooled[0, 0, 0], torch.tensor([3.0, 5, 7, 9]) - 0.5)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [1, 2, 3])
def test_equals_torchvision_and_so_does_the_gradient(sampling_ratio: int, *, aligned: bool) -> None:
    maps = [level.float().requires_grad_() for level in pyramid()]
    boxes = regions()
    levels = assign_levels(boxes, 2, 5) - 2
    ours = roi_align(
        maps, STRIDES, boxes, levels, resolution=5, sampling_ratio=sampling_ratio, aligned=aligned
    ).unflatten(0, (2, -1))
    weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(2))
    gradients = torch.autograd.grad((ours * weight).sum(), maps)

    expected = torch.zeros_like(ours)
    for level, (feature, stride) in enumerate(zip(maps, STRIDES, strict=True)):
        pooled = torchvision_roi_align(feature, list(boxes), 5, 1 / stride, sampling_ratio, aligned).unflatten(
            0, (2, -1)
        )
        expected = torch.where((levels == level)[..., None, None, None], pooled, expected)
    assert_close(ours, expected, atol=1e-5, rtol=1e-4)
    for mine, theirs in zip(gradients, torch.autograd.grad((expected * weight).sum(), maps), strict=True):
        assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_levels_equal_torchvision() -> None:
    boxes = regions(images=1, count=500).clamp(min=0)
    pooler = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    maps = {str(i): torch.zeros(1, 1, 256 // s, 256 // s) for i, s in enumerate(STRIDES)}
    _ = pooler(maps, [boxes[0]], [(256, 256)])
    assert pooler.map_levels is not None
    assert_close(assign_levels(boxes, 2, 5)[0] - 2, pooler.map_levels([boxes[0]]))


def test_a_box_of_224_pixels_belongs_to_level_4() -> None:
    side = torch.tensor([112.0, 223.0, 224.0, 448.0, 5000.0, 0.0])
    boxes = torch.stack([torch.zeros_like(side), torch.zeros_like(side), side, side], dim=-1)
    assert assign_levels(boxes, 2, 5).tolist() == [3, 3, 4, 5, 5, 2]
