"""Training and prediction are one graph each: no loop over images, no shape that depends on values."""

from __future__ import annotations

import subprocess
import sys

import pytest

# In a process of its own, without the type-checking import hook: its wrappers are not part of the package.
SETUP = """
import dataclasses, torch
from functools import partial
from resdet.config import load_config
from resdet.models.backbones import BACKBONES
from resdet.models.backbones.resnet import BasicBlock, ResNet
from resdet.models.build.detector import build_model
from resdet.structures import Batch, Targets

torch.manual_seed(0)
BACKBONES["tiny"] = partial(ResNet, BasicBlock, (1, 1, 1, 1), stem_channels=8, c2_channels=8)
config = load_config(overrides=["model.backbone.name={backbone}", "model.neck.channels=16", "model.box_head.fc_dim=32",
    "model.rpn.pre_nms_train=100", "model.rpn.proposals_train=50", "model.rpn.pre_nms_test=100",
    "model.rpn.proposals_test=50", "model.box_head.score_threshold=0.0", "model.backbone.frozen_stages=0",
    *{overrides}]).model
model = build_model(config, num_classes=5)
corner = torch.rand(3, 8, 2) * 60
boxes = torch.cat([corner, corner + 20], dim=-1)
valid = torch.arange(8) < torch.tensor([5, 1, 0])[:, None]
masks = torch.randint(0, 256, (3, 8, 16, 16), dtype=torch.uint8)
targets = Targets(boxes, torch.randint(0, 5, (3, 8)), torch.zeros_like(valid), valid, torch.arange(3), masks)
images = torch.randint(0, 256, (3, 3, 96, 128), dtype=torch.uint8)
batch = Batch(images, torch.tensor([[96, 128], [80, 90], [96, 70]]), targets)
"""

COMPARE = """
losses, compiled_losses = model(batch), torch.compile(model, fullgraph=True, backend="{backend}")(batch)
torch.testing.assert_close(compiled_losses, losses)
parameters = list(model.parameters())
gradients, compiled_gradients = (torch.autograd.grad(sum(l.values()), parameters) for l in (losses, compiled_losses))
torch.testing.assert_close(compiled_gradients, gradients, atol=1e-4, rtol=1e-3)
compiled = torch.compile(model.eval().predict, fullgraph=True, backend="{backend}")(batch)
torch.testing.assert_close(dataclasses.asdict(compiled), dataclasses.asdict(model.predict(batch)))
assert compiled.valid.any()
assert (compiled.masks is None) == (config.mask_head is None)
"""

# Exported for 2 images; the program runs for 1 and for 3 as well.
EXPORT = """
class Predict(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model
    def forward(self, images, sizes):
        found = self.model.predict(Batch(images, sizes))
        return found.boxes, found.scores, found.labels, found.valid, found.masks

images_of = torch.export.Dim("images", min=1, max=16)
given = batch.images[:2], batch.sizes[:2]
program = torch.export.export(Predict(model.eval()), given, dynamic_shapes=({0: images_of},) * 2)
for count in (1, 3):
    given = batch.images[:count], batch.sizes[:count]
    torch.testing.assert_close(program.module()(*given), Predict(model)(*given))
"""

COUNT = """
import torch._dynamo
for function in (model, model.predict):
    explained = torch._dynamo.explain(function)(batch)
    assert (explained.graph_count, explained.graph_break_count) == (1, 0), explained
"""


def run(script: str) -> None:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


FPN = ("nano", ["model.mask_head={name: fcn, channels: 8, resolution: 5}"])
C4 = ("tiny", ["model.neck.name=c4", "model.box_head.resolution=14", "model.box_head.sampling_ratio=0",
    "model.mask_head={name: fcn, channels: 8, class_agnostic: true}"])  # fmt: skip
DC5 = ("tiny", ["model.neck.name=dc5", "model.box_head.pooling=roi_pool"])
PAFPN = ("resnet18", ["model.neck.name=pafpn", "model.box_head.sampling_ratio=0"])


def setup(backbone: str, overrides: list[str]) -> str:
    return SETUP.format(backbone=backbone, overrides=overrides)


def test_losses_and_prediction_are_one_graph_each() -> None:
    run(setup(*PAFPN) + COUNT)


@pytest.mark.parametrize("layout", [FPN, C4, DC5], ids=["fpn", "c4", "dc5"])
def test_fullgraph_gives_what_eager_gives(layout: tuple[str, list[str]]) -> None:
    run(setup(*layout) + COMPARE.format(backend="aot_eager"))


def test_prediction_is_exported_for_any_number_of_images() -> None:
    run(setup(*FPN) + EXPORT)


@pytest.mark.slow
@pytest.mark.parametrize("layout", [FPN, C4, DC5], ids=["fpn", "c4", "dc5"])
def test_fullgraph_through_the_compiler_gives_what_eager_gives(layout: tuple[str, list[str]]) -> None:
    run(setup(*layout) + COMPARE.format(backend="inductor"))
