"""Nothing between images in and losses or detections out asks a GPU for a value, or copies to it from the host.

Shown on any machine with tensors that have a shape and a device but no values: every operator that a GPU would run is
seen. What happens inside our own operators (NMS, RoIPool) is not: tests/gpu counts that on a GPU.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from resdet.analysis.benchmark.timing import random_batch
from resdet.config import load_config
from resdet.models.build.detector import build_model
from resdet.structures import Batch
from waits import Waits, devices

LAYOUTS = {
    "fpn with masks": ["model.mask_head={name: fcn, channels: 8, resolution: 5}"],
    "pafpn": ["model.neck.name=pafpn"],
    "cascade": ["model.cascade={}"],
    "c4": ["model.backbone.name=resnet18", "model.neck.name=c4", "model.box_head.sampling_ratio=0",
        "model.box_head.resolution=14"],
    "dc5": ["model.backbone.name=resnet18", "model.neck.name=dc5", "model.box_head.pooling=roi_pool"],
    "the first stage alone": ["model.box_head=null"],
}  # fmt: skip


class Calls(nn.Module):
    """A function of a model as a module, so that its parameters can be replaced."""

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        self.model, self.name = model, name

    def forward(self, batch: Batch) -> Any:
        return getattr(self.model, self.name)(batch)


def on_gpu(values: Tensor) -> Tensor:
    """A tensor without values on a GPU that need not be there; made within a FakeTensorMode."""
    return torch.empty(values.shape, dtype=values.dtype, device="cuda").requires_grad_(values.requires_grad)


def fake(structure: Any) -> Any:
    """A batch, or its targets, with every tensor on the GPU."""
    fields = {field.name: getattr(structure, field.name) for field in dataclasses.fields(structure)}
    return type(structure)(
        **{
            name: on_gpu(value) if isinstance(value, Tensor) else fake(value) if value is not None else None
            for name, value in fields.items()
        }
    )


def waits_of(model: nn.Module, name: str, batch: Batch) -> list[str]:
    called = Calls(model, name)
    with FakeTensorMode():
        values = {name: on_gpu(value) for name, value in (*called.named_parameters(), *called.named_buffers())}
        given = fake(batch)
        with Waits() as waits:
            result = torch.func.functional_call(called, values, (given,))
    assert devices(result if isinstance(result, dict) else vars(result)) == {"cuda"}
    return waits.seen


@pytest.mark.parametrize("layout", LAYOUTS)
def test_losses_and_predictions_do_not_wait_for_a_gpu(layout: str) -> None:
    config = load_config("nano", overrides=LAYOUTS[layout]).model
    model = build_model(config, num_classes=5)
    batch = random_batch((64, 96), (64, 96), 2, mask_resolution=16 if config.mask_head else None)
    assert waits_of(model.train(), "forward", batch) == []
    with torch.no_grad():
        assert waits_of(model.eval(), "predict", dataclasses.replace(batch, targets=None)) == []


WAITING: dict[str, Callable[[Tensor], Any]] = {
    "a constant from the host": lambda values: values * values.new_tensor([2.0]),
    "positions": lambda values: values.nonzero(),
    "a choice by a mask": lambda values: values[values > 0],
    "a copy to the host": lambda values: values.cpu(),
}


@pytest.mark.parametrize("what", WAITING)
def test_what_waits_is_seen(what: str) -> None:
    with FakeTensorMode(shape_env=ShapeEnv(allow_dynamic_output_shape_ops=True)):
        values = torch.empty(3, device="cuda")
        with Waits() as waits:
            _ = WAITING[what](values)
    assert len(waits.seen) == 1
