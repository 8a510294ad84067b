"""Any optimizer of torch or timm by its name: its arguments are checked before the first step, its state is saved."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from exact_resume import assert_resume_is_exact
from torch import nn

from resdet.config import Config, OptimConfig, config_from_yaml, load_config, to_yaml
from resdet.engine.train import train
from resdet.engine.train.optim import build_optimizer, set_learning_rate
from resdet.engine.train.optimizers import known_optimizers
from resdet.errors import UserError

FOR_A_GPU = ("timm/bnb", "timm/fused")  # of other packages, which need CUDA
NAMES = [name for name in known_optimizers() if not name.startswith(FOR_A_GPU) and name != "muon"]


def small() -> nn.Module:
    _ = torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Conv2d(4, 2, 1))


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        images = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(step))
        set_learning_rate(optimizer, 0.01 / (1 + step))
        optimizer.zero_grad()
        model(images).square().mean().backward()
        _ = optimizer.step()


def through_a_file(state: Any) -> Any:
    """What a checkpoint does with it: only plain values and tensors come back."""
    file = io.BytesIO()
    torch.save(state, file)
    _ = file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_moves_the_weights_and_goes_on_exactly_from_its_saved_state(name: str) -> None:
    optim = OptimConfig(name=name, weight_decay=0.0 if name == "rprop" else 0.01)
    whole, first, second = small(), small(), small()
    trained(whole, build_optimizer(whole, optim), range(4))
    optimizer = build_optimizer(first, optim)
    trained(first, optimizer, range(2))
    saved = through_a_file({"model": first.state_dict(), "optimizer": optimizer.state_dict()})
    optimizer = build_optimizer(second, optim)
    _ = second.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    trained(second, optimizer, range(2, 4))
    start = small().state_dict()
    assert not torch.equal(start["0.weight"], whole.state_dict()["0.weight"])
    for key, tensor in whole.state_dict().items():
        assert torch.equal(second.state_dict()[key], tensor), key


def test_many_are_known() -> None:
    assert {"sgd", "adamw", "nadam", "rmsprop", "timm/lion", "timm/lamb", "timm/adan"} <= set(NAMES)
    assert "lbfgs" not in NAMES
    assert len(NAMES) > 80


def test_arguments_reach_the_optimizer() -> None:
    optimizer = build_optimizer(small(), OptimConfig(name="adamw", arguments={"betas": [0.8, 0.9], "amsgrad": True}))
    assert all(list(group["betas"]) == [0.8, 0.9] and group["amsgrad"] for group in optimizer.param_groups)
    nesterov = build_optimizer(small(), OptimConfig(momentum=0.7, arguments={"nesterov": True}))
    assert (nesterov.defaults["momentum"], nesterov.defaults["nesterov"]) == (0.7, True)
    lars = build_optimizer(small(), OptimConfig(name="timm/lars", momentum=0.6))
    assert lars.defaults["momentum"] == 0.6, "timm's kinds of sgd have the momentum of the config"


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"name": "rmspop"}, r"optim.name=rmspop is not known; did you mean 'rmsprop'\?"),
        ({"name": "timm/lyon"}, r"optim.name=timm/lyon is not known; did you mean 'timm/lion'\?"),
        ({"name": "optimizer"}, r"optim.name=optimizer is not known"),
        ({"arguments": {"nestrov": True}}, r"optim.arguments.nestrov: optim.name=sgd has no .* mean 'nesterov'\?"),
        ({"arguments": {"lr": 0.1}}, r"optim.arguments.lr has a key of its own: optim.lr"),
        ({"arguments": {"momentum": 0.1}}, r"optim.arguments.momentum has a key of its own: optim.momentum"),
        ({"name": "adamw", "arguments": {"betas": 3}}, r"optim.name=adamw with optim.arguments=\{betas=3\}: "),
        ({"name": "adamw", "arguments": {"betas": [2, 3]}}, r"Invalid beta parameter at index 0: 2"),
        ({"name": "adamw", "arguments": {"eps": "small"}}, r"optim.name=adamw with optim.arguments=\{eps=small\}: "),
        ({"momentum": 0.0, "arguments": {"nesterov": True}}, r"Nesterov momentum requires a momentum"),
        ({"name": "rprop"}, r"optim.name=rprop has no weight decay; set optim.weight_decay=0"),
        ({"name": "muon"}, r"optim.name=muon .* only supports 2D parameters"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_before_training(keys: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line) as error:
        _ = build_optimizer(small(), OptimConfig(**keys))
    assert str(error.value).isprintable()


def test_arguments_are_plain_values_that_files_and_overrides_add_up() -> None:
    config = load_config(overrides=["optim.arguments.nesterov=true", "optim.arguments={dampening: 0.0}"])
    assert config.optim.arguments == {"nesterov": True, "dampening": 0.0}
    assert config_from_yaml(to_yaml(config), "a test") == config
    for bad in ("3", "[1]", "{a b: 1}", "{a: .nan}", '{a: "${x}"}'):
        with pytest.raises(UserError, match=r"^optim.arguments="):
            _ = load_config(overrides=[f"optim.arguments={bad}"])


def test_a_resumed_run_with_another_optimizer_of_timm_is_exact(tmp_path: Path, nano: Config) -> None:
    nano.optim.name, nano.optim.lr, nano.train.steps = "timm/lion", 0.001, 4
    full = assert_resume_is_exact(nano, tmp_path)
    nano.optim.arguments = {"betas": [0.8, 0.9]}
    with pytest.raises(UserError, match=r"optim.arguments.betas=\[0.8, 0.9\] \(was null\)"):
        _ = train(nano, full, resume=True)
