"""The probe: gradients and responses by pencil, and nothing changes because somebody looks."""

import json
import math
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from resdet.analysis.probe.layers import (
    LayerSignal,
    Net,
    Snapshot,
    initialize,
    nets_of,
    nets_of_runs,
    observe,
    probe,
    watched_layers,
    watching,
)
from resdet.analysis.probe.page import draw_figure, figure_of, to_json, to_page
from resdet.config import Config, load_config
from resdet.engine.train import train
from resdet.errors import UserError
from resdet.models.backbones import build_backbone
from resdet.structures import Batch

ROOT = Path(__file__).parents[3]


class Linear(nn.Module):
    """b * (a . x) of images of one pixel; only the centres of the 3x3 kernels meet it. The loss is the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 1, 3, padding=1, bias=False)
        self.b = nn.Conv2d(1, 1, 3, padding=1, bias=False)
        with torch.no_grad():
            _ = self.a.weight.zero_()
            self.a.weight[0, :, 1, 1] = torch.tensor([2.0, 0.0, 1.0])
            _ = self.b.weight.zero_()
            self.b.weight[0, 0, 1, 1] = -3.0

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": self.b(self.a(batch.images)).mean()}


PIXELS = torch.tensor([[1.0, 2.0, 2.0], [3.0, 0.0, 2.0]])[:, :, None, None]


def test_a_linear_net_by_hand():
    """a . x is 4 and 8: the mean gradient of b is 6, that of a is -3 (2, 1, 2)."""
    net = Linear()
    loss, (a, b) = observe(net, Batch(PIXELS, torch.ones(2, 2, dtype=torch.int64)), watched_layers(net, "3x3"))
    assert (loss, a.name, b.name) == (-18, "a", "b")
    assert b.gradient == pytest.approx(6)
    assert a.gradient == pytest.approx(3 * 3)
    assert a.response == pytest.approx(2)  # 4 and 8 are 2 from their mean
    assert b.response == pytest.approx(6)
    assert a.update is None


def test_gradients_scale_as_the_chain_rule_says():
    """Twice b: the layers below get twice the gradient, b's own stays."""
    net = Linear()
    batch = Batch(PIXELS, torch.ones(2, 2, dtype=torch.int64))
    _, (a, b) = observe(net, batch, watched_layers(net, "3x3"))
    with torch.no_grad():
        _ = net.b.weight.mul_(2)
    _, (a2, b2) = observe(net, batch, watched_layers(net, "3x3"))
    assert a.gradient is not None
    assert (a2.gradient, b2.gradient) == (pytest.approx(2 * a.gradient), b.gradient)


def test_the_response_is_after_the_norm_and_before_relu_and_addition():
    """Batch norm with weight g gives a deviation of g, whatever the input; what follows in place does not count."""
    _ = torch.manual_seed(0)
    net = build_backbone("resnet20_cifar", norm="bn").train()
    norms = {name: module for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)}
    for number, norm in enumerate(norms.values(), start=1):
        _ = nn.init.constant_(norm.weight, number)
    with watching(net, watched_layers(net, "3x3")) as spreads:
        _ = net(torch.randn(8, 3, 16, 16))
    assert list(spreads)[:3] == ["conv1", "layer1.0.conv1", "layer1.0.conv2"]
    for number, spread in enumerate(spreads.values(), start=1):
        assert spread.deviation == pytest.approx(number, rel=1e-3)


def test_a_layer_that_runs_twice_has_the_spread_of_all_it_gave():
    layer = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    with torch.no_grad():
        _ = layer.weight.zero_()
        layer.weight[0, 0, 1, 1] = 1
    net = nn.ModuleDict({"layer": layer})
    parts = torch.randn(3, 1, 4, 4), torch.randn(5, 1, 2, 2) + 7
    with watching(net, {"layer": layer}) as spreads:
        for part in parts:
            _ = layer(part)
    together = torch.cat([part.flatten() for part in parts])
    assert spreads["layer"].deviation == pytest.approx(together.std(correction=0).item(), rel=1e-5)


def test_kernels_choose_the_layers_and_hooks_are_gone_afterwards():
    net = build_backbone("resnet50", norm="bn")
    assert len(watched_layers(net, "3x3")) == 16
    assert len(watched_layers(net, "all")) == 53
    with watching(net, watched_layers(net, "all")):
        pass
    assert not any(module._forward_hooks for module in net.modules())


@pytest.fixture
def patches() -> Config:
    return load_config(
        ROOT / "configs/cifar/patches.yaml",
        overrides=["data.patches={train_images: 32, val_images: 8, size: 12}", "train.batch_size=16"],
    )


@pytest.fixture
def nano() -> Config:
    return load_config(ROOT / "configs/nano.yaml", overrides=["data.shapes={train_images: 4, val_images: 2}"])


@pytest.mark.parametrize("task", ["patches", "nano"])
def test_looking_changes_nothing(task: str, request: pytest.FixtureRequest):
    config: Config = request.getfixturevalue(task)
    often = probe(Net("often", config), steps=3, every=1)
    seldom = probe(Net("seldom", config), steps=3, every=99)
    assert [shot.step for shot in often] == [0, 1, 2]
    assert [shot.step for shot in seldom] == [0, 2]
    assert often[2] == seldom[1]  # loss and signals, to the last bit


def test_the_losses_are_those_of_training(tmp_path: Path, patches: Config):
    patches.train.steps, patches.train.log_every = 3, 1
    patches.eval.every, patches.eval.train_images = 0, 0
    _ = train(patches, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    looks = probe(Net("same", patches), steps=3, every=1)
    assert [shot.loss for shot in looks] == [line["loss"] for line in lines if "loss" in line]


def test_the_first_update_of_sgd_is_the_learning_rate_times_the_gradient(patches: Config):
    patches.optim.weight_decay = patches.optim.norm_weight_decay = 0.0
    patches.optim.lr = 0.5
    patches.optim.reference_batch = 16
    _ = torch.manual_seed(patches.train.seed)
    weights = dict(build_backbone("resnet20_cifar", norm="bn").named_parameters())
    (look,) = probe(Net("sgd", patches), steps=1, every=1)
    assert len(look.layers) == 19
    for layer in look.layers:
        norm = weights[layer.name.removeprefix("backbone.") + ".weight"].norm().item()
        assert layer.gradient is not None
        assert layer.update == pytest.approx(0.5 * layer.gradient / norm, rel=1e-3)


def test_a_deep_plain_net_without_norms_has_no_gradient_left_and_with_batch_norm_it_has(patches: Config):
    """Xavier's initialization loses half the variance in each of 55 layers with ReLU; batch norm restores it."""
    nets = nets_of(patches, ["plain56_cifar"], ["bn", "none"], ["xavier"])
    with_norms, without = (probe(net, steps=1, every=1)[0].layers[0].gradient for net in nets)
    assert with_norms is not None
    assert without is not None
    assert with_norms > 1e-2
    assert without < 1e-9 * with_norms


def test_the_gradient_without_norms_falls_with_the_depth(patches: Config):
    nets = nets_of(patches, ["plain20_cifar", "plain32_cifar", "plain44_cifar"], ["none"], ["xavier"])
    first = [probe(net, steps=1, every=1)[0].layers[0].gradient or 0.0 for net in nets]
    for shallow, deep in pairwise(first):  # 2^-6 is half the variance of twelve layers
        assert deep < shallow * 2**-6


def test_the_initializations_have_their_variances():
    _ = torch.manual_seed(0)
    net = nn.ModuleDict({"backbone": build_backbone("resnet18", norm="bn")})
    layer = net.get_submodule("backbone.layer4.0.conv1")  # from 256 to 512 channels
    assert isinstance(layer, nn.Conv2d)
    for init, variance in (("he", 2 / (9 * 512)), ("xavier", 2 / (9 * (256 + 512))), ("gaussian", 1e-4)):
        initialize(net, init)
        assert layer.weight.var().item() == pytest.approx(variance, rel=0.02)


def test_nets_are_named_by_what_differs(patches: Config):
    assert [net.name for net in nets_of(patches, [], [], [])] == ["resnet20_cifar"]
    nets = nets_of(patches, ["vgg16", "resnet18"], ["bn", "none"], [])
    assert [net.name for net in nets] == ["vgg16 bn", "vgg16 none", "resnet18 bn", "resnet18 none"]
    assert [net.config.model.backbone.norm for net in nets] == ["bn", "none"] * 2
    with pytest.raises(UserError, match="--inits xavir is not known; did you mean 'xavier'"):
        _ = nets_of(patches, [], [], ["xavir"])


def test_a_finished_run_is_looked_at_as_it_is(tmp_path: Path, patches: Config):
    patches.train.steps = 2
    patches.eval.train_images = 0
    _ = train(patches, tmp_path / "a/run")
    _ = train(patches, tmp_path / "b/run")
    nets = nets_of_runs([tmp_path / "a/run", tmp_path / "b/run"])
    assert [net.name for net in nets] == [str(tmp_path / "a/run"), str(tmp_path / "b/run")]
    (a,), (b,) = (probe(net, steps=9, every=1) for net in nets)
    assert a == b
    assert all(layer.update is None and layer.gradient for layer in a.layers)
    assert a.loss != probe(Net("start", patches), steps=1, every=1)[0].loss


def test_a_run_is_looked_at_from_its_start_over_its_checkpoints_to_its_end(tmp_path: Path, patches: Config):
    patches.train.steps, patches.train.checkpoint_every, patches.train.keep_checkpoints = 4, 2, 9
    patches.eval.train_images = 0
    _ = train(patches, tmp_path / "run")
    (net,) = nets_of_runs([tmp_path / "run"], over_training=True)
    looks = probe(net, steps=9, every=1)
    assert [look.step for look in looks] == [0, 2, 4]
    from_start = probe(Net("start", patches), steps=1, every=1)[0]
    assert [layer.gradient for layer in looks[0].layers] == [layer.gradient for layer in from_start.layers]
    (last,) = probe(nets_of_runs([tmp_path / "run"])[0], steps=9, every=1)
    assert looks[-1] == last
    with pytest.raises(UserError, match="no run with a checkpoint; --over-training looks at all checkpoints of a run"):
        _ = nets_of_runs([tmp_path / "run/checkpoints/step_00000002"], over_training=True)


def test_the_page_has_the_layers_of_the_first_the_middle_and_the_last_look():
    layers = (LayerSignal("a", 1.0, 0.5, None),)
    page = to_page({"net": [Snapshot(step, 1.0, layers) for step in (0, 10, 20, 30, 40)]})
    assert [step for step in range(0, 41, 10) if f"At update {step}<" in page] == [0, 20, 40]


SEEN = {
    "<script>alert(1)</script>": [
        Snapshot(0, 2.5, (LayerSignal("a", 1.0, 0.5, 1e-3), LayerSignal("b", None, None, None))),
        Snapshot(4, None, (LayerSignal("a", 1e-12, 0.5, 0.0), LayerSignal("b", 2.0, 0.25, 1e-4))),
    ]
}


def test_each_quantity_has_one_legend_and_its_looks_one_range_so_that_they_can_be_compared():
    nets = {
        name: [Snapshot(step, 1.0, (LayerSignal("a", 10.0**-step, 1.0 + step, 1e-3),)) for step in (0, 2, 4)]
        for name in ("first", "second")
    }
    page = to_page(nets)
    quantities = page.split("<section")[2:-1]  # between the summary and the table of layers
    assert [quantity.count('<ul class="legend">') for quantity in quantities] == [1, 1, 1]
    looks = [plot for plot in quantities[0].split("<figure")[1:] if "At update" in plot]
    assert len(looks) == 3
    assert len({tuple(re.findall(r'class="tick">([^<]*)<', look)) for look in looks}) == 1


def test_the_page_is_one_file_and_holds_what_names_say_as_text():
    page = to_page(SEEN)
    assert "<script>alert(1)" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "updates 0 to 4" in page
    assert "1.0e-12" in page


def test_the_numbers_are_json_and_what_is_not_finite_is_null():
    nets = json.loads(to_json(SEEN), parse_constant=pytest.fail)["nets"]
    first, last = nets["<script>alert(1)</script>"]
    assert first["layers"][1] == {"name": "b", "gradient": None, "response": None, "update": None}
    assert (last["step"], last["loss"]) == (4, None)


def test_a_gradient_that_is_not_finite_is_none():
    net = Linear()
    batch = Batch(PIXELS * math.inf, torch.ones(2, 2, dtype=torch.int64))
    loss, layers = observe(net, batch, watched_layers(net, "3x3"))
    assert loss is None
    assert all(layer.gradient is None and layer.response is None for layer in layers)


def test_the_figure_has_a_row_for_each_look_of_the_page():
    axes = figure_of(SEEN).axes
    rows = [label for each in axes if (label := each.get_ylabel())]
    assert rows == ["At update 0", "At update 4"]
    assert len(axes) == len(rows) * 3


def test_the_figure_is_a_png(tmp_path: Path):
    draw_figure(SEEN, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(UserError, match="cannot be written"):
        draw_figure(SEEN, tmp_path / "absent/figure.png")
