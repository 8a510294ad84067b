from __future__ import annotations

import subprocess
import sys

import pytest

# In a process of its own: the shape checks that pytest installs would break the graph.
SCRIPT = """
import torch
from resdet.models.backbones import build_backbone
from resdet.models.backbones.base import freeze
from resdet.models.backbones.resnet import BasicBlock, ResNet

backbone = {backbone}
freeze(backbone, 1)
compiled = torch.compile(backbone, fullgraph=True, backend="aot_eager")
images = torch.randn(2, 3, 64, 64)
torch.testing.assert_close(compiled.eval()(images), backbone(images))
with torch.autocast("cpu", torch.bfloat16):
    sum(level.float().mean() for level in compiled.train()(images)).backward()
assert all(p.grad is not None for p in backbone.parameters() if p.requires_grad)
"""
SMALL = "ResNet(BasicBlock, (1, 1, 1, 1), stem_channels=8, c2_channels=8)"
NAMES = ["resnet50_deformable", "preact_resnet18", "vgg11_bn", "timm/regnetx_002"]


def test_fullgraph():
    assert_one_graph(SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["frozen_bn", "bn"])
@pytest.mark.parametrize("name", NAMES)
def test_fullgraph_of_the_families(name: str, norm: str):
    assert_one_graph(f"build_backbone({name!r}, norm={norm!r})")


def assert_one_graph(backbone: str):
    script = SCRIPT.format(backbone=backbone)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
