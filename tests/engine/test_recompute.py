"""Activation checkpointing: the same losses, gradients, statistics and weights, with less memory."""

from pathlib import Path
from typing import Any

import pytest
import torch
from exact_resume import assert_resume_is_exact, assert_same, last_step, logged
from torch import nn

from resdet.config import Config, load_config
from resdet.engine.checkpoint import MODEL, checkpoint_path, read_model_file
from resdet.engine.train import train
from resdet.engine.train.recompute import blocks_of, recompute_blocks
from resdet.errors import UserError
from resdet.models.backbones import build_backbone


@pytest.mark.parametrize(
    ("name", "count"), [("resnet18", 8), ("resnet50", 16), ("timm/convnext_atto", 12), ("vgg16", 0), ("nano", 0)]
)
def test_the_blocks_of_a_backbone_are_its_residual_blocks(name: str, count: int) -> None:
    with torch.device("meta"):
        assert len(blocks_of(build_backbone(name, norm="bn"))) == count


@pytest.mark.parametrize("name", ["resnet18", "timm/convnext_atto"])
def test_gradients_and_statistics_are_the_same_bits(name: str) -> None:
    found: list[dict[str, Any]] = []
    for recompute in (False, True):
        _ = torch.manual_seed(0)
        backbone = build_backbone(name, norm="bn").train()
        config = load_config(overrides=[f"train.recompute={str(recompute).lower()}"])
        recompute_blocks(backbone, config)
        for _ in range(2):
            images = torch.randn(2, 3, 64, 64)
            _ = torch.stack([level.square().mean() for level in backbone(images)]).sum().backward()
        found.append({name: p.grad for name, p in backbone.named_parameters()} | dict(backbone.named_buffers()))
    assert_same(found[1], found[0], name)


@pytest.fixture
def resnet(nano: Config) -> Config:
    nano.model.backbone.name, nano.model.backbone.norm, nano.train.steps = "resnet18", "bn", 3
    return nano


def test_a_run_is_the_same_and_goes_on_exactly(tmp_path: Path, resnet: Config) -> None:
    _ = train(resnet, tmp_path / "plain")
    resnet.train.recompute = True
    full = assert_resume_is_exact(resnet, tmp_path, at=(1,))
    ours, theirs = (read_model_file(checkpoint_path(run, 3) / MODEL).weights for run in (full, tmp_path / "plain"))
    assert last_step(full) == 3
    assert_same(ours, theirs, "weights")
    assert logged(full) == logged(tmp_path / "plain")


def test_nothing_to_recompute_is_an_error(tmp_path: Path, nano: Config) -> None:
    nano.train.recompute = True
    with pytest.raises(UserError, match=r"model.backbone.name=nano has no blocks"):
        _ = train(nano, tmp_path / "run")
    nano.train.compile = True
    with pytest.raises(UserError, match=r"train.recompute=true with train.compile=true"):
        recompute_blocks(nn.Sequential(), nano)


def kept_bytes(*, recompute: bool) -> int:
    """What is kept from the forward to the backward pass."""
    backbone = build_backbone("resnet50", norm="bn").train()
    recompute_blocks(backbone, load_config(overrides=[f"train.recompute={str(recompute).lower()}"]))
    weights = {parameter.data_ptr() for parameter in backbone.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        levels = backbone(torch.randn(2, 3, 64, 64))
    assert len(levels) == 4
    return sum(kept.values())


def test_less_than_half_is_kept_for_the_backward_pass() -> None:
    assert kept_bytes(recompute=True) < 0.5 * kept_bytes(recompute=False)
