"""RoIAlign on a GPU: the weighted sum of the CPU, and the kernel, both against float64 on the CPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from exactness import rms
from resdet.ops.roi_align import assign_levels
from resdet.ops.roi_align import roi_align as by_embedding_bag

pytestmark = pytest.mark.gpu

STRIDES = (4, 8, 16, 32)
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 1.5e-2}  # of the root mean square; bf16 keeps 8 bits of each factor


def by_kernel(*arguments: object, **options: object) -> Tensor:
    from resdet.ops.kernels.roi_align import roi_align

    return roi_align(*arguments, **options)  # pyright: ignore[reportArgumentType]


FORMS: dict[str, Callable[..., Tensor]] = {"embedding_bag": by_embedding_bag, "kernel": by_kernel}


def pyramid(images: int, channels: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(48, 61), (24, 31), (12, 16), (6, 8)]
    return [torch.randn(images, channels, *size, generator=generator, dtype=torch.float64) for size in sizes]


def regions(images: int, count: int) -> Tensor:
    """Boxes of all sizes; some reach far out of the image."""
    generator = torch.Generator().manual_seed(1)
    corner = torch.rand(images, count, 2, generator=generator) * 300 - 40
    return torch.cat([corner, corner + torch.rand(images, count, 2, generator=generator) ** 3 * 260], dim=-1)


def pooled_with_gradients(
    form: Callable[..., Tensor], maps: list[Tensor], boxes: Tensor, *, sampling_ratio: int, aligned: bool
) -> list[Tensor]:
    """The regions and the gradient of each map, in float64 on the CPU."""
    maps, levels = [level.detach().requires_grad_() for level in maps], assign_levels(boxes, 2, 5) - 2
    pooled = form(maps, STRIDES, boxes, levels, resolution=3, sampling_ratio=sampling_ratio, aligned=aligned)
    weight = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(pooled)
    gradients = torch.autograd.grad((pooled * weight).sum(), maps)
    return [values.detach().cpu().double() for values in (pooled, *gradients)]


@pytest.mark.parametrize("channels", [3, 300])
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("form", FORMS)
def test_regions_and_gradients_equal_float64(
    form: str, dtype: torch.dtype, channels: int, device: torch.device
) -> None:
    boxes = regions(2, 4)
    for sampling_ratio, aligned in ((2, True), (1, False)):
        options = {"sampling_ratio": sampling_ratio, "aligned": aligned}
        exact = pooled_with_gradients(by_embedding_bag, pyramid(2, channels), boxes, **options)
        maps = [level.to(device, dtype, memory_format=torch.channels_last) for level in pyramid(2, channels)]
        ours = pooled_with_gradients(FORMS[form], maps, boxes.to(device), **options)
        for mine, truth in zip(ours, exact, strict=True):
            assert rms(mine - truth) <= BOUNDS[dtype] * rms(truth)


def test_no_regions_give_no_features_and_no_gradients(device: torch.device) -> None:
    maps = [level.float().to(device) for level in pyramid(2, 3)]
    pooled, *gradients = pooled_with_gradients(
        by_kernel, maps, torch.zeros(2, 0, 4, device=device), sampling_ratio=2, aligned=True
    )
    assert pooled.shape == (0, 3, 3, 3)
    assert all(not gradient.any() for gradient in gradients)
