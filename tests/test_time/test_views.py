"""Images seen larger, smaller or mirrored: where boxes go, and what happens at the border of an image."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from resdet.structures import Batch
from resdet.test_time.views import mirrored, mirrored_boxes, resized

SIZES = torch.tensor([[40, 50], [64, 30]])


def batch() -> Batch:
    images = torch.randint(1, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rows, columns = torch.arange(64)[:, None], torch.arange(64)
    inside = (rows < SIZES[:, 0, None, None]) & (columns < SIZES[:, 1, None, None])
    return Batch(images * inside[:, None], SIZES)


def test_mirroring_twice_changes_nothing() -> None:
    assert_close(mirrored(mirrored(batch())).images, batch().images)
    boxes = torch.tensor([[[3.0, 4, 20, 30]], [[0.0, 0, 30, 64]]])
    assert_close(mirrored_boxes(mirrored_boxes(boxes, SIZES), SIZES), boxes)


def test_each_image_is_mirrored_within_its_own_width() -> None:
    there = mirrored(batch()).images
    assert_close(there[0, :, :40, 0], batch().images[0, :, :40, 49])
    assert (there[0, :, :, 50:] == 0).all(), "padding stays on the right"
    assert mirrored_boxes(torch.tensor([[[3.0, 4, 20, 30]]]), SIZES[:1]).tolist() == [[[30, 4, 47, 30]]]


def test_a_factor_of_one_is_the_batch_itself() -> None:
    assert resized(batch(), 1.0, divisor=32).images is not None
    assert torch.equal(resized(batch(), 1.0, divisor=32).images, batch().images)


HALF, LARGER = [[20, 25], [32, 15]], [[60, 75], [96, 45]]


@pytest.mark.parametrize(("factor", "sizes", "side"), [(0.5, HALF, 32), (1.5, LARGER, 96)])
def test_sizes_follow_the_factor_and_the_shape_suits_every_stride(
    factor: float, sizes: list[list[int]], side: int
) -> None:
    view = resized(batch(), factor, divisor=32)
    assert view.sizes.tolist() == sizes
    assert view.images.shape == (2, 3, side, side)
    for image, (height, width) in zip(view.images, sizes, strict=True):
        assert (image[:, height:] == 0).all()
        assert (image[:, :, width:] == 0).all()


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.7])
def test_padding_does_not_shine_into_the_image(factor: float) -> None:
    uniform = Batch(torch.where(batch().images > 0, 200, 0).to(torch.uint8), SIZES)
    view = resized(uniform, factor, divisor=32)
    height, width = view.sizes[0].tolist()
    assert_close(view.images[0, :, :height, :width], torch.full((3, height, width), 200.0), atol=1e-3, rtol=0)


@pytest.mark.parametrize("factor", [0.4, 0.75, 1.6, 2.5])
def test_a_place_in_the_view_is_the_factor_times_its_place_in_the_batch(factor: float) -> None:
    """Of a ramp, pixel x of the view shows what lies at (x + 1/2) / factor - 1/2 in the batch."""
    images = torch.arange(64.0).expand(1, 3, 64, 64).contiguous()
    view = resized(Batch(images, torch.tensor([[64, 64]])), factor, divisor=32)
    shown = view.images[0, 0, 0, : int(view.sizes[0, 1])]
    middle = slice(3, -3)  # the border repeats its last pixel
    assert_close(shown[middle], ((torch.arange(len(shown)) + 0.5) / factor - 0.5)[middle], atol=0.02, rtol=0)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_what_a_box_holds_is_found_in_the_scaled_box(factor: float) -> None:
    images = torch.zeros(1, 3, 64, 64)
    images[:, :, 16:32, 8:40] = 100.0
    view = resized(Batch(images, torch.tensor([[64, 64]])), factor, divisor=32).images[0, 0]
    x1, y1, x2, y2 = (int(side * factor) for side in (8, 16, 40, 32))
    assert (view[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1] > 99).all()
    assert_close(view.sum(), images[0, 0].sum() * factor**2, rtol=1e-3, atol=0)
