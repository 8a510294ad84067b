"""Pasting: Detectron2's pixels, torchvision's places, and pycocotools' run lengths without the image in between."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as pycocotools_mask
from safetensors.torch import load_file
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import paste_masks_in_image

from resdet.coco.run_lengths import compress, encode_masks
from resdet.ops.pasting import paste_masks

coco_mask: Any = pycocotools_mask
FIXTURES = Path(__file__).resolve().parents[2] / "../shared/fixtures/detectron2"


def floats(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


def test_a_full_mask_fills_the_pixels_whose_centres_lie_in_its_box() -> None:
    """A border cell fades to one half at its edge; at the corner pixel .7 of it is left across and .77 down."""
    (pasted,) = paste_masks(np.ones((1, 8, 8), np.float32), floats([2.4, 1.6, 6.4, 4.6]), 6, 8)
    expected = np.zeros((6, 8), bool)
    expected[2:5, 2:6] = True  # centres 2.5 .. 5.5 in [2.4, 6.4], and 2.5 .. 4.5 in [1.6, 4.6]; 1.5 is above
    np.testing.assert_array_equal(pasted, expected)


def test_interpolation_between_two_cells() -> None:
    """Cells 1 and 0 side by side over four pixels: .75 + .25 in the first's half, 1 between, then falling through .5"""
    mask = floats([1, 0], [1, 0])[None]
    values = [1.0 * 0.75, 0.75, 0.25, 0.0]  # at cell coordinates -.25, .25, .75, 1.25 along x; edges fade along y
    (pasted,) = paste_masks(mask, floats([0, 0, 4, 400]), 400, 4)
    np.testing.assert_array_equal(pasted[200], np.array(values) >= 0.5)


def sampled(masks: np.ndarray, boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Detectron2's formula, in its words: grid_sample at the centres of all pixels."""
    x1, y1, x2, y2 = torch.from_numpy(boxes).double().split(1, dim=1)
    y = (torch.arange(height)[None] + 0.5 - y1) / (y2 - y1) * 2 - 1
    x = (torch.arange(width)[None] + 0.5 - x1) / (x2 - x1) * 2 - 1
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=3)
    values = F.grid_sample(torch.from_numpy(masks).double()[:, None], grid, align_corners=False)
    return values[:, 0].numpy()


def smooth_masks(seed: int, count: int, cells: int) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 4, 4, generator=generator)
    return F.interpolate(coarse, size=(cells, cells), mode="bicubic").clamp(0, 1)[:, 0].numpy()


@given(st.integers(0, 2**31), st.sampled_from([1, 2, 14, 28]), st.integers(1, 40), st.integers(1, 40))
@settings(deadline=None, max_examples=60, derandomize=True)
def test_pixels_are_detectron2s_and_runs_are_pycocotools(seed: int, cells: int, height: int, width: int) -> None:
    """Boxes at any fraction of a pixel, over the borders of the image and as high as it."""
    rng = np.random.default_rng(seed)
    masks = smooth_masks(seed, 6, cells)
    masks[0] = rng.random((cells, cells)) > 0.5
    masks[1] = 1
    ends = rng.uniform(-5, 45, (2, 6, 2))
    boxes = np.concatenate([ends.min(0), ends.max(0) + 0.1], axis=1).astype(np.float32)
    boxes[0] = [0, 0, width, height]
    boxes[1, 1::2] = [-0.25, height]
    pasted = paste_masks(masks, boxes, height, width)
    values = sampled(masks, boxes, height, width)
    clear = np.abs(values - 0.5) > 1e-5
    np.testing.assert_array_equal(pasted[clear], (values >= 0.5)[clear])
    for ours, image in zip(encode_masks(masks, boxes, height, width), pasted, strict=True):
        assert ours == coco_mask.encode(np.asfortranarray(image.astype(np.uint8)))


def test_empty_boxes_and_masks_are_empty() -> None:
    boxes = floats([5, 5, 5, 9], [5, 9, 9, 5], [50, 50, 60, 60], [1, 1, 3, 3])
    masks = np.ones((4, 2, 2), np.float32)
    masks[3] = 0.4
    assert not paste_masks(masks, boxes, 10, 12).any()
    empty = coco_mask.encode(np.zeros((10, 12), np.uint8, order="F"))
    assert encode_masks(masks, boxes, 10, 12) == [empty] * 4
    assert encode_masks(masks[:0], boxes[:0], 10, 12) == []


@given(st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=6), max_size=5))
@settings(deadline=None, max_examples=100, derandomize=True)
def test_strings_are_pycocotools(runs: list[list[int]]) -> None:
    expected = [coco_mask.frPyObjects({"size": [1, 1], "counts": counts}, 1, 1)["counts"] for counts in runs]
    assert compress([np.array(counts) for counts in runs]) == expected


def test_masks_lie_where_torchvision_puts_them() -> None:
    """Its boxes are whole pixels, one wider, and its masks have no fading border: equal up to about a pixel around."""
    masks, boxes = smooth_masks(0, 8, 28), floats(*[[20.0, 10, 120, 90]] * 8)
    theirs = paste_masks_in_image(torch.from_numpy(masks)[:, None], torch.from_numpy(boxes), (100, 140))[:, 0].numpy()
    ours = paste_masks(masks, boxes, 100, 140)
    union = (ours | (theirs >= 0.5)).sum((1, 2))
    both = (ours & (theirs >= 0.5)).sum((1, 2))
    assert (both / union > 0.95).all()


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "different"), [("mask_rcnn_R50_FPN_tiny", 49), ("mask_rcnn_R50_C4_tiny", 0)])
def test_the_pasted_masks_of_detectron2(name: str, different: int) -> None:
    """Of 60,000 set pixels at most 49 differ: their values are one half to within the rounding of float32."""
    file = FIXTURES / f"{name}.expected.safetensors"
    if not file.is_file():
        pytest.skip(f"{file} is not here")
    expected = load_file(file)
    masks, boxes = expected["masks"][:, 0].numpy(), expected["final_boxes_2x"].numpy()
    theirs = expected["final_masks_2x"].numpy() != 0
    ours = paste_masks(masks, boxes, *theirs.shape[1:])
    apart = ours != theirs
    assert apart.sum() <= different
    np.testing.assert_allclose(sampled(masks, boxes, *theirs.shape[1:])[apart], 0.5, atol=1e-6)


@pytest.mark.slow
def test_pasting_is_three_times_as_fast_as_torchvision(capsys: pytest.CaptureFixture[str]) -> None:
    """100 masks of 28 x 28 on 800 x 1066 pixels, sides from 20 to 400 pixels, one thread, alternating runs."""
    if os.environ.get("OMP_NUM_THREADS") != "1":
        pytest.skip("needs OMP_NUM_THREADS=1, which NumPy reads when it is imported")
    rng, masks = np.random.default_rng(0), smooth_masks(0, 100, 28)
    sides, centres = np.exp(rng.uniform(np.log(20), np.log(400), (100, 2))), rng.uniform(0, 1, (100, 2)) * [1066, 800]
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
    boxes = np.clip(boxes, 0, [1066, 800] * 2).astype(np.float32)
    theirs, places = torch.from_numpy(masks)[:, None], torch.from_numpy(boxes)

    def torchvision_encoded() -> None:
        pixels = (paste_masks_in_image(theirs, places, (800, 1066))[:, 0] >= 0.5).numpy().astype(np.uint8)
        _ = [coco_mask.encode(np.asfortranarray(image)) for image in pixels]

    def seconds(work: Any) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    contests = {
        "pixels": (
            lambda: paste_masks_in_image(theirs, places, (800, 1066)),
            lambda: paste_masks(masks, boxes, 800, 1066),
        ),
        "run lengths": (torchvision_encoded, lambda: encode_masks(masks, boxes, 800, 1066)),
    }
    for name, (peer, own) in contests.items():
        pairs = np.array([(seconds(peer), seconds(own)) for _ in range(7)])
        ratio = float(np.median(pairs[:, 0] / pairs[:, 1]))
        with capsys.disabled():
            print(f"\n{name}: {ratio:.1f} x torchvision, medians {np.median(pairs, axis=0) * 1000} ms")
        assert ratio >= 3
