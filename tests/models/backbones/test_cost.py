"""The table of docs/backbones.md, against the papers and against what the code gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision

from resdet.models.backbones import BACKBONES, build_backbone
from resdet.models.backbones.__main__ import PAPER, multiply_adds, parameters, row

TABLE = (Path(__file__).parents[3] / "docs" / "backbones.md").read_text(encoding="utf-8")
# He et al. 2015, table 6, in millions.
CIFAR_PARAMETERS = {
    "resnet20_cifar": 0.27,
    "resnet32_cifar": 0.46,
    "resnet44_cifar": 0.66,
    "resnet56_cifar": 0.85,
    "resnet110_cifar": 1.7,
}


@pytest.mark.parametrize(("name", "billions"), PAPER.items())
def test_multiply_adds_are_the_papers(name: str, billions: float):
    with torch.device("meta"):
        counted = multiply_adds(build_backbone(name), 224, 224)
    assert counted / 1e9 == pytest.approx(billions, abs=0.1)


@pytest.mark.parametrize(("name", "millions"), CIFAR_PARAMETERS.items())
def test_cifar_nets_have_the_papers_parameters(name: str, millions: float):
    with torch.device("meta"):
        assert parameters(build_backbone(name)) / 1e6 == pytest.approx(millions, abs=0.04)


TORCHVISION = sorted(set(BACKBONES) & set(torchvision.models.list_models()))


@pytest.mark.parametrize("name", TORCHVISION)
def test_parameters_are_torchvisions(name: str):
    with torch.device("meta"):
        oracle = torchvision.models.get_model(name)
        backbone = build_backbone(name)
    head = sum(p.numel() for part, p in oracle.named_parameters() if part.startswith(("fc.", "classifier.")))
    assert parameters(backbone) == sum(p.numel() for p in oracle.parameters()) - head


SAMPLE = ("resnet18", "resnet50_deformable", "vgg16", "resnet20_cifar", "nano")


@pytest.mark.parametrize(
    "name", [name if name in SAMPLE else pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES]
)
def test_the_table_in_the_documentation_is_up_to_date(name: str):
    """Otherwise run `python -m resdet.models.backbones` and put its output there."""
    assert row(name) in TABLE.splitlines()
