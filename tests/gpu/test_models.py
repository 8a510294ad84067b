"""Models on a GPU: losses, gradients and detections are those of the CPU, in float32 and in bf16 within bounds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from resdet.analysis.benchmark.timing import NUM_CLASSES, random_batch
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
LOSS_IN_FLOAT32 = 1e-4  # relative
GRADIENT_IN_FLOAT32 = 1e-3  # of the norm of all gradients
LOSS_IN_BF16 = 0.05  # relative: 8 bits of each factor, averaged over thousands of terms
GRADIENT_IN_BF16 = 0.9  # the least cosine between the gradients of all parameters


@pytest.fixture(autouse=True)
def exact_products() -> Iterator[None]:
    """Products in float32 keep their 24 bits: no TF32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def model_and_batch(layout: str) -> tuple[RCNN, Batch]:
    config = load_config("nano", overrides=LAYOUTS[layout]).model
    if config.box_head is not None:
        config.box_head.score_threshold = 0.0
    _ = torch.manual_seed(0)
    model = build_model(config, NUM_CLASSES)
    return model, random_batch((96, 128), (96, 128), 2, mask_resolution=16 if config.mask_head else None)


def losses_and_gradient(model: RCNN, batch: Batch, *, bf16: bool = False) -> tuple[dict[str, float], Tensor]:
    """The losses, and the gradient of all parameters in one row, on the CPU."""
    model.zero_grad()
    with torch.autocast(batch.images.device.type, dtype=torch.bfloat16, enabled=bf16):
        losses = model.train()(batch)
    _ = torch.stack(list(losses.values())).sum().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    assert all(gradient is not None for gradient in gradients)
    row = torch.cat([gradient.detach().cpu().double().flatten() for gradient in gradients if gradient is not None])
    return {name: loss.item() for name, loss in losses.items()}, row


@pytest.mark.parametrize("layout", LAYOUTS)
def test_losses_and_gradients_equal_the_cpu(layout: str, device: torch.device) -> None:
    model, batch = model_and_batch(layout)
    losses, gradient = losses_and_gradient(model, batch)
    there, gradient_there = losses_and_gradient(model.to(device), batch.to(device))
    assert there == pytest.approx(losses, rel=LOSS_IN_FLOAT32)
    assert (gradient_there - gradient).norm() <= GRADIENT_IN_FLOAT32 * gradient.norm()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bf16_is_within_its_bounds(layout: str, device: torch.device) -> None:
    model, batch = model_and_batch(layout)
    losses, gradient = losses_and_gradient(model, batch)
    there, rounded = losses_and_gradient(model.to(device), batch.to(device), bf16=True)
    assert sum(there.values()) == pytest.approx(sum(losses.values()), rel=LOSS_IN_BF16)
    assert torch.cosine_similarity(gradient, rounded, dim=0) >= GRADIENT_IN_BF16


@pytest.mark.parametrize("layout", LAYOUTS)
def test_detections_equal_the_cpu(layout: str, device: torch.device) -> None:
    """In float32. Where two scores are nearly equal, rounding may decide their order: the scores, sorted, stay."""
    model, batch = model_and_batch(layout)
    with torch.no_grad():
        expected = model.eval().predict(batch)
        found = model.to(device).predict(batch.to(device))
    assert torch.equal(found.valid.cpu(), expected.valid)
    assert expected.valid.any()
    torch.testing.assert_close(found.scores.cpu(), expected.scores, rtol=1e-4, atol=1e-5)
    near = ((found.boxes.cpu() - expected.boxes).abs() < 0.01).all(-1) & (found.labels.cpu() == expected.labels)
    assert near[expected.valid].float().mean() > 0.9
