import math
from typing import Literal

import pytest
import torch
from torch import nn

from resdet.config import OptimConfig, TrainConfig, load_config
from resdet.engine.train.optim import (
    build_optimizer,
    clip_gradients,
    learning_rate,
    learning_rate_scales,
    peak_learning_rate,
    rate_warnings,
    set_learning_rate,
)
from resdet.models.backbones import build_backbone

TRAIN = TrainConfig(steps=90, batch_size=4)


def rate(step: int, **changes: float | str | list[float]) -> float:
    return learning_rate(step, OptimConfig(**{"lr": 0.16, "warmup_steps": 0, **changes}), TRAIN)  # pyright: ignore


def test_the_learning_rate_is_in_proportion_to_the_batch():
    assert peak_learning_rate(OptimConfig(lr=0.02, reference_batch=16), TrainConfig(batch_size=2)) == 0.0025
    assert peak_learning_rate(OptimConfig(lr=0.02, reference_batch=16), TrainConfig(batch_size=16)) == 0.02


def test_warmup_is_a_straight_line_from_its_factor_to_the_peak():
    rates = [rate(step, schedule="constant", warmup_steps=10, warmup_factor=0.1) for step in range(12)]
    assert rates[0] == pytest.approx(0.1 * 0.04)
    assert rates[5] == pytest.approx(0.55 * 0.04)
    assert rates[10] == rates[11] == pytest.approx(0.04)


def test_the_step_schedule_falls_at_its_milestones():
    rates = [rate(step, schedule="step", milestones=[2 / 3, 8 / 9], gamma=0.1) for step in (0, 59, 60, 79, 80, 89)]
    assert rates == pytest.approx([0.04, 0.04, 0.004, 0.004, 0.0004, 0.0004])


def test_the_cosine_schedule_is_half_at_half_time_and_ends_at_zero():
    assert rate(0, schedule="cosine") == pytest.approx(0.04)
    assert rate(45, schedule="cosine") == pytest.approx(0.02)
    assert rate(90, schedule="cosine") == pytest.approx(0)


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.GroupNorm(2, 4)
        self.frozen = nn.Linear(2, 2).requires_grad_(requires_grad=False)


def test_norms_have_their_own_weight_decay_and_frozen_parameters_none():
    model = Mixed()
    optimizer = build_optimizer(model, OptimConfig(weight_decay=0.5, norm_weight_decay=0.25))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay[id(model.conv.weight)] == decay[id(model.conv.bias)] == 0.5
    assert decay[id(model.norm.weight)] == decay[id(model.norm.bias)] == 0.25
    assert id(model.frozen.weight) not in decay
    assert len(decay) == 4


class Detector(nn.Module):
    """A backbone of three stages (stem, conv2, conv3) and a head."""

    def __init__(self, frozen_stages: int = 0) -> None:
        super().__init__()
        self.backbone = build_backbone("nano", norm="bn", frozen_stages=frozen_stages)
        self.head = nn.Linear(16, 1)


def rates(model: nn.Module, optim: OptimConfig, value: float) -> dict[str, float]:
    optimizer = build_optimizer(model, optim)
    set_learning_rate(optimizer, value)
    by_id = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    return {name: by_id[id(p)] for name, p in model.named_parameters() if id(p) in by_id}


def test_each_earlier_stage_of_the_backbone_learns_more_slowly():
    of = rates(Detector(), OptimConfig(backbone_lr=0.5, layer_decay=0.1), 2.0)
    assert of["head.weight"] == of["head.bias"] == 2
    assert of["backbone.conv3.weight"] == of["backbone.bn3.bias"] == pytest.approx(1)
    assert of["backbone.conv2.weight"] == of["backbone.bn2.weight"] == pytest.approx(0.1)
    assert of["backbone.conv1.weight"] == of["backbone.bn1.weight"] == pytest.approx(0.01)


def test_frozen_stages_have_no_rate_and_the_others_keep_theirs():
    of = rates(Detector(frozen_stages=2), OptimConfig(layer_decay=0.5), 1.0)
    assert set(of) == {
        "backbone.conv3.weight", "backbone.conv3.bias", "backbone.bn3.weight", "backbone.bn3.bias",
        "head.weight", "head.bias",
    }  # fmt: skip
    assert set(of.values()) == {1.0}


def test_layers_at_one_rate_are_two_groups_and_all_at_the_rate_itself():
    optimizer = build_optimizer(Detector(), OptimConfig())
    assert len(optimizer.param_groups) == 2
    assert learning_rate_scales(optimizer) == (1, 1)
    assert set(rates(Detector(), OptimConfig(), 0.1).values()) == {0.1}
    assert learning_rate_scales(build_optimizer(Detector(), OptimConfig(backbone_lr=0.5, layer_decay=0.1))) == (
        pytest.approx(0.005),
        1,
    )


def test_a_rate_of_zero_leaves_the_backbone_as_it_is():
    model = Detector()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build_optimizer(model, OptimConfig(backbone_lr=0.0))
    set_learning_rate(optimizer, 0.1)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    _ = optimizer.step()
    changed = {name.partition(".")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"head"}


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_the_optimizer_is_chosen_by_name(name: Literal["sgd", "adamw"], kind: type[torch.optim.Optimizer]):
    assert isinstance(build_optimizer(Mixed(), OptimConfig(name=name)), kind)


def test_clipping_bounds_the_norm_of_all_gradients_together_and_returns_the_norm_before():
    model = nn.Linear(2, 1)
    model.weight.grad = torch.tensor([[3.0, 0.0]])
    model.bias.grad = torch.tensor([4.0])
    assert clip_gradients(model, None).item() == 5
    torch.testing.assert_close(model.weight.grad, torch.tensor([[3.0, 0.0]]))
    assert clip_gradients(model, 1.0).item() == 5
    torch.testing.assert_close(model.weight.grad, torch.tensor([[0.6, 0.0]]), rtol=1e-5, atol=0)
    torch.testing.assert_close(model.bias.grad, torch.tensor([0.8]), rtol=1e-5, atol=0)
    assert math.isclose(clip_gradients(model, 1.0).item(), 1, rel_tol=1e-5)


def test_a_longer_run_says_where_its_learning_rate_jumps() -> None:
    """Milestone 0.8 of 40 steps is step 32; of 80 it is 64, so that step 41 has ten times the rate."""
    short, long = (load_config(overrides=[f"train.steps={steps}", *SHORT_WARMUP]) for steps in (40, 80))
    (line,) = rate_warnings(short, long, 40)
    assert line.startswith("the learning rate of step 41 was 0.002 with train.steps=40 and is now 0.02")
    assert rate_warnings(short, long, 20) == []
    assert rate_warnings(short, short, 40) == []


SHORT_WARMUP = ("optim.milestones=[0.8]", "optim.warmup_steps=2", "train.batch_size=16", "optim.lr=0.02")
