import pytest
import torch
from torch.testing import assert_close
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops import roi_align as torchvision_roi_align

from exactness import assert_as_exact_as_oracle, assert_equal_in_float64
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
    exact = theirs_and_gradients(pyramid(), regions().double(), sampling_ratio, aligned=aligned)
    assert_equal_in_float64(ours_and_gradients(pyramid(), regions().double(), sampling_ratio, aligned=aligned), exact)
    maps = [level.float() for level in pyramid()]
    ours = ours_and_gradients(maps, regions(), sampling_ratio, aligned=aligned)
    assert_as_exact_as_oracle(ours, theirs_and_gradients(maps, regions(), sampling_ratio, aligned=aligned), exact)


def ours_and_gradients(
    maps: list[torch.Tensor], boxes: torch.Tensor, sampling_ratio: int, *, aligned: bool
) -> list[torch.Tensor]:
    maps, levels = [level.requires_grad_() for level in maps], assign_levels(boxes, 2, 5) - 2
    pooled = roi_align(maps, STRIDES, boxes, levels, resolution=5, sampling_ratio=sampling_ratio, aligned=aligned)
    return with_gradients(pooled.unflatten(0, (2, -1)), maps)


def theirs_and_gradients(
    maps: list[torch.Tensor], boxes: torch.Tensor, sampling_ratio: int, *, aligned: bool
) -> list[torch.Tensor]:
    """Every level pools every region; each region takes its own level's."""
    maps, levels = [level.requires_grad_() for level in maps], assign_levels(boxes, 2, 5) - 2
    chosen = torch.zeros((), dtype=boxes.dtype)
    for level, (feature, stride) in enumerate(zip(maps, STRIDES, strict=True)):
        pooled = torchvision_roi_align(feature, list(boxes), 5, 1 / stride, sampling_ratio, aligned)
        chosen = torch.where((levels == level)[..., None, None, None], pooled.unflatten(0, (2, -1)), chosen)
    return with_gradients(chosen, maps)


def with_gradients(pooled: torch.Tensor, maps: list[torch.Tensor]) -> list[torch.Tensor]:
    weight = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(2)).to(pooled)
    return [pooled.detach(), *torch.autograd.grad((pooled * weight).sum(), maps)]


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
