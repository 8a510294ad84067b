"""Models on a GPU: losses, gradients and detections are those of the CPU, in float32 and in bf16 within bounds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from exactness import rms
from resdet.analysis.benchmark.timing import random_batch
from resdet.config import load_config
from resdet.models.build.detector import build_model
from resdet.models.rcnn import RCNN
from resdet.structures import Batch

pytestmark = pytest.mark.gpu

LAYOUTS = {
    "fpn with masks": ["model.mask_head={name: fcn, channels: 8, resolution: 5}"],
    "pafpn, adaptive samples": ["model.neck.name=pafpn", "model.box_head.sampling_ratio=0"],
    "cascade": ["model.cascade={}"],
    "c4": ["model.backbone.name=resnet18", "model.neck.name=c4", "model.box_head.sampling_ratio=0",
        "model.box_head.resolution=14"],
    "dc5, RoIPool": ["model.backbone.name=resnet18", "model.neck.name=dc5", "model.box_head.pooling=roi_pool"],
    "the first stage alone": ["model.box_head=null"],
}  # fmt: skip
FLOAT64 = 1e-9  # relative to the root mean square
LOSS_IN_BF16 = 0.05  # relative: 8 bits of each factor, averaged over thousands of terms
GRADIENT_IN_BF16 = 0.9  # the least cosine between the gradients of all parameters


@pytest.fixture(autouse=True)
def exact_products() -> Iterator[None]:
    """Products in float32 keep their 24 bits: no TF32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def model_and_batch(layout: str, dtype: torch.dtype) -> tuple[RCNN, Batch]:
    config = load_config("nano", overrides=[*LAYOUTS[layout], "model.box_head.score_threshold=0.0"][
        : None if "box_head=null" not in LAYOUTS[layout][0] else -1
    ]).model  # fmt: skip
    _ = torch.manual_seed(0)
    model = build_model(config, num_classes=5).to(dtype)
    batch = random_batch((96, 128), (96, 128), 2, mask_resolution=16 if config.mask_head else None)
    return model, batch


def losses_and_gradients(
    model: RCNN, batch: Batch, *, bf16: bool = False
) -> tuple[dict[str, float], dict[str, Tensor]]:
    model.zero_grad()
    with torch.autocast(batch.images.device.type, dtype=torch.bfloat16, enabled=bf16):
        losses = model.train()(batch)
    torch.stack(list(losses.values())).sum().backward()
    gradients = {
        name: parameter.grad.detach().cpu().double()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return {name: loss.item() for name, loss in losses.items()}, gradients


@pytest.mark.parametrize("layout", LAYOUTS)
def test_losses_and_gradients_equal_the_cpu_in_float64(layout: str, device: torch.device) -> None:
    model, batch = model_and_batch(layout, torch.float64)
    losses, gradients = losses_and_gradients(model, batch)
    there, gradients_there = losses_and_gradients(model.to(device), batch.to(device))
    assert there == pytest.approx(losses, rel=1e-6)  # boxes and losses are in float32 by convention
    assert gradients.keys() == gradients_there.keys()
    for name, gradient in gradients.items():
        assert rms(gradients_there[name] - gradient) <= 1e-5 * rms(gradient) + FLOAT64, name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bf16_is_within_its_bounds(layout: str, device: torch.device) -> None:
    model, batch = model_and_batch(layout, torch.float32)
    losses, gradients = losses_and_gradients(model, batch)
    there, gradients_there = losses_and_gradients(model.to(device), batch.to(device), bf16=True)
    assert sum(there.values()) == pytest.approx(sum(losses.values()), rel=LOSS_IN_BF16)
    exact = torch.cat([gradient.flatten() for gradient in gradients.values()])
    rounded = torch.cat([gradients_there[name].flatten() for name in gradients])
    assert torch.cosine_similarity(exact, rounded, dim=0) >= GRADIENT_IN_BF16


@pytest.mark.parametrize("layout", LAYOUTS)
def test_detections_equal_the_cpu(layout: str, device: torch.device) -> None:
    model, batch = model_and_batch(layout, torch.float64)
    with torch.no_grad():
        expected = model.eval().predict(batch)
        found = model.to(device).predict(batch.to(device))
    assert torch.equal(found.valid.cpu(), expected.valid)
    assert expected.valid.any()
    torch.testing.assert_close(found.scores.cpu(), expected.scores, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.boxes.cpu(), expected.boxes, rtol=1e-5, atol=1e-3)
    assert torch.equal(found.labels.cpu(), expected.labels)
