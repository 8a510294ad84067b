"""The preparation of images inside a graph: the same rule as outside, in torch and in ONNX."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from jaxtyping import UInt8

from resdet.data.batches.collate import padded_shape
from resdet.data.images.decode import resize, resized_size
from resdet.exporting.preparation import Preparation, area_weights, linear_weights

SIZES = [(480, 640), (100, 30), (31, 32), (7, 300), (1, 1), (64, 64), (129, 64)]
CPU = torch.device("cpu")


def photo(height: int, width: int) -> UInt8[np.ndarray, "H W 3"]:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_those_of_the_loader(size: tuple[int, int]) -> None:
    preparation = Preparation(short_side=64, max_side=100, divisor=32)
    wanted = resized_size(*size, 64, 100)
    assert preparation.resized_size(*size) == wanted
    assert tuple(map(preparation.padded, wanted)) == padded_shape([wanted], 32)


def test_every_new_pixel_is_a_mean_of_old_ones() -> None:
    for old, new in ((7, 3), (3, 7), (640, 333), (5, 5), (1, 4), (4, 1)):
        for weights in (area_weights(old, new, CPU), linear_weights(old, new, CPU)):
            assert weights.shape == (new, old)
            torch.testing.assert_close(weights.sum(1), torch.ones(new))
            assert (weights >= 0).all()


def test_weights_by_pencil() -> None:
    """Three pixels to two: each new pixel is one old one and half of the middle one. Two to four: quarters."""
    torch.testing.assert_close(area_weights(3, 2, CPU), torch.tensor([[2, 1, 0], [0, 1, 2]]) / 3)
    torch.testing.assert_close(linear_weights(2, 4, CPU), torch.tensor([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]))


@pytest.mark.parametrize("size", [(480, 640), (40, 30), (100, 333)])
def test_pixels_are_those_of_opencv_up_to_its_rounding(size: tuple[int, int]) -> None:
    image = photo(*size)
    preparation = Preparation(short_side=90, max_side=200, divisor=32)
    height, width = preparation.resized_size(*size)
    batch = preparation.batch(torch.from_numpy(image)[None])
    assert batch.sizes.tolist() == [[height, width]]
    assert batch.images.shape == (1, 3, preparation.padded(height), preparation.padded(width))
    ours = batch.images[0, :, :height, :width].permute(1, 2, 0).numpy()
    difference = np.abs(ours - resize(image, (height, width)))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.1  # OpenCV enlarges in fixed-point numbers
    assert (batch.images[0, :, height:] == 0).all()
    assert (batch.images[0, :, :, width:] == 0).all()


def test_boxes_return_to_the_given_image() -> None:
    preparation = Preparation(short_side=50, max_side=1000, divisor=32)
    images = torch.zeros(1, 100, 200, 3, dtype=torch.uint8)
    boxes = preparation.in_given(torch.tensor([[[10.0, 20, 30, 40], [-5, 0, 500, 51]]]), images)
    assert boxes.tolist() == [[[20, 40, 60, 80], [0, 0, 200, 100]]]


DETECTOR = """<ir_version: 10, opset_import: ["" : 18]>
detector (uint8[n, 3, h, w] images, int64[n, 2] sizes) => (float[n, 3, h, w] pixels, float[n, 1, 4] boxes)
{
  pixels = Cast <to = 1> (images)
  corners = Constant <value = int64[4] {1, 0, 1, 0}> ()
  flat = Gather <axis = 1> (sizes, corners)
  floats = Cast <to = 1> (flat)
  one = Constant <value = int64[1] {1}> ()
  boxes = Unsqueeze (floats, one)
}
"""


@pytest.mark.parametrize("size", SIZES)
def test_the_preparation_in_onnx_is_that_in_torch(size: tuple[int, int]) -> None:
    """Around a graph that gives back its input, and the size of the resized image as a box: the whole image."""
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    from onnx import parser  # pyright: ignore[reportMissingImports]

    from resdet.exporting.onnx_preparation import with_preparation

    preparation = Preparation(short_side=64, max_side=100, divisor=32)
    model = with_preparation(parser.parse_model(DETECTOR), preparation)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = np.stack([photo(*size), 255 - photo(*size)])
    boxes, pixels = session.run(["boxes", "pixels"], {"images": images})
    wanted = preparation.batch(torch.from_numpy(images)).images.numpy()
    assert pixels.shape == wanted.shape
    assert np.abs(pixels - wanted).max() <= 1  # the two matrix products may round a half differently
    assert (pixels != wanted).mean() < 1e-3
    height, width = size
    np.testing.assert_allclose(boxes, [[[width, height, width, height]]] * 2, rtol=1e-6)
