"""Signals inside a network: the gradient and the response of each layer, and the size of its update.

The measurements of He et al. 2015 (sections 4.1 and 4.2, Fig. 7), for any config.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resdet.config import Config
from resdet.engine.checkpoint import checkpoints, damage, find_model_file, read_model_file, without_weights
from resdet.engine.distributed import World, autocast, choose_device, to_device
from resdet.engine.task.table import task_of
from resdet.engine.train.build import build_state, check_num_classes
from resdet.engine.train.optim import learning_rate
from resdet.engine.train.state import TrainState
from resdet.engine.train.step import LossNotFinite, gradients_of, training_step
from resdet.errors import UserError, did_you_mean
from resdet.models.backbones.norms import FrozenBatchNorm2d
from resdet.structures import Batch

# These classes exactly: timm's norms derive from them and include the activation, which comes after the response.
RESPONSE_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d, nn.GroupNorm)
KERNELS = ("3x3", "all")
INITS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "he": None,  # as the backbones initialize it: variance 2 / fan out (He et al. 2015, 1502.01852)
    "xavier": nn.init.xavier_normal_,  # 2 / (fan in + fan out) (Glorot & Bengio 2010): half of He's in most layers
    "gaussian": lambda weight: nn.init.normal_(weight, std=0.01),  # AlexNet, VGG
}


@dataclass(frozen=True)
class LayerSignal:
    """One convolution in one update; a number that is not finite is None."""

    name: str
    gradient: float | None  # L2 norm of the loss's gradient with respect to the weight; None if the weight is frozen
    response: float | None  # standard deviation after the norm, before ReLU and addition (Fig. 7)
    # L2 norm of the weight's change divided by the norm of the weight; None without an update
    update: float | None = None


@dataclass(frozen=True)
class Snapshot:
    """The layers in the order of the forward pass, during update number `step` (counted from 0)."""

    step: int
    loss: float | None
    layers: tuple[LayerSignal, ...]


@dataclass(frozen=True)
class Moment:
    """A network as it was after `step` updates of its training: `config` builds it with these weights."""

    step: int
    config: Config


@dataclass(frozen=True)
class Net:
    """A network to be probed and its name: an untrained one from a config, or a run's, at moments of its training."""

    name: str
    config: Config
    init: str = "he"
    moments: tuple[Moment, ...] = ()


def nets_of(config: Config, backbones: Sequence[str], norms: Sequence[str], inits: Sequence[str]) -> list[Net]:
    """Every combination, named by the values that differ; an empty list means the value in the config.

    Raises UserError for an unknown initialization.
    """
    for init in inits:
        if init not in INITS:
            raise UserError(f"--inits {init} is not known{did_you_mean(init, INITS)}")
    own = config.model.backbone
    nets = []
    for backbone in backbones or [own.name]:
        for norm in norms or [own.norm]:
            for init in inits or ["he"]:
                told = [backbone] + [norm] * bool(norms) + [init] * bool(inits)
                part = replace(own, name=backbone, norm=norm)
                model = replace(config.model, backbone=part)
                nets.append(Net(" ".join(told), replace(config, model=model), init))
    return nets


def nets_of_runs(runs: Sequence[Path], *, over_training: bool = False) -> list[Net]:
    """The networks of runs (the newest sound checkpoint of each) or of checkpoints, named by their folders.

    With `over_training` each run is looked at before its first update and at each of its sound checkpoints. Raises
    UserError for a path that is no run or no checkpoint, and for a checkpoint where a run is needed.
    """
    names = [run.name for run in runs]
    moments_of = _moments if over_training else _last_moment
    found = [(run.name if names.count(run.name) == 1 else str(run), moments_of(run)) for run in runs]
    return [Net(name, moments[-1].config, moments=moments) for name, moments in found]


def _last_moment(run: Path) -> tuple[Moment, ...]:
    return (_moment(*_saved(run)),)


def _moments(run: Path) -> tuple[Moment, ...]:
    """The start of a run and its sound checkpoints, oldest first."""
    kept = [_saved(checkpoint) for checkpoint in checkpoints(run) if damage(checkpoint) is None]
    if not kept:
        raise UserError(f"{run}: no run with a checkpoint; --over-training looks at all checkpoints of a run")
    _, _, config = kept[0]
    return (Moment(0, config), *(_moment(*saved) for saved in kept))


def _saved(place: Path) -> tuple[Path, int, Config]:
    """The model file, its step, and the config of its run."""
    file, _ = find_model_file(place)
    saved = read_model_file(file)
    return file, saved.step, _anywhere(saved.config)


def _moment(file: Path, step: int, config: Config) -> Moment:
    return Moment(step, replace(config, model=replace(without_weights(config).model, weights=str(file))))


def _anywhere(config: Config) -> Config:
    """On any device, for the run's own may not exist on this machine."""
    return replace(config, train=replace(config.train, device="auto"))


def probe(net: Net, *, steps: int, every: int, kernels: str = "3x3") -> list[Snapshot]:
    """Trains for `steps` updates as `train` would and observes update 0, every `every` updates, and the last one.

    The network of a run is observed at its moments, always on the first training batch, and is not updated. `kernels`
    is a member of KERNELS and selects the convolutions.
    """
    if net.moments:
        return [_look_back(moment, kernels) for moment in net.moments]
    run = _prepared(net.config)
    initialize(run.state.model, net.init)
    layers = watched_layers(run.state.model, kernels)
    snapshots = []
    for step, batch in zip(range(steps), run.batches, strict=False):
        watched = layers if step % every == 0 or step == steps - 1 else {}
        loss, signals = observe(
            run.state.model,
            batch,
            watched,
            precision=run.precision,
            optimizer=run.state.optimizer,
            lr=learning_rate(step, run.config.optim, run.config.train),
            grad_clip=run.config.train.grad_clip,
        )
        if watched:
            snapshots.append(Snapshot(step, loss, signals))
    return snapshots


def _look_back(moment: Moment, kernels: str) -> Snapshot:
    run = _prepared(moment.config)
    layers = watched_layers(run.state.model, kernels)
    loss, signals = observe(run.state.model, next(run.batches), layers, precision=run.precision)
    return Snapshot(moment.step, loss, signals)


@dataclass(frozen=True)
class _Training:
    """A training before its first update."""

    state: TrainState
    config: Config  # completed by what the data and the weights say
    batches: Iterator[Batch]
    precision: torch.autocast


def _prepared(config: Config) -> _Training:
    world = World()
    device = choose_device(config.train.device, world)
    task = task_of(config)
    train_set, _ = task.open_data(config)
    check_num_classes(config, train_set)
    state, config, _ = build_state(config, train_set.class_names, device, world)
    _ = state.model.train()
    loaded = task.training_batches(train_set, config, start_step=0, rank=0, world_size=1)
    batches = (to_device(each.batch, config.train, device) for each in loaded)
    return _Training(state, config, batches, autocast(config.train, device))


def initialize(model: nn.Module, init: str) -> None:
    """Initializes the weights of the backbone's convolutions with one of INITS; "he" keeps their initial weights."""
    draw = INITS[init]
    if draw is None:
        return
    backbone = model.backbone
    assert isinstance(backbone, nn.Module)
    for layer in backbone.modules():
        if isinstance(layer, nn.Conv2d):
            _ = draw(layer.weight)


def watched_layers(model: nn.Module, kernels: str) -> dict[str, nn.Conv2d]:
    """The model's 3x3 convolutions by name, or all of its convolutions."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and (kernels == "all" or module.kernel_size == (3, 3))
    }


@dataclass
class Spread:
    """Sums over all outputs of a layer in one forward pass; if a layer runs several times, all its outputs count."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, x: Float[Tensor, "*_"]) -> None:
        variance, mean = torch.var_mean(x.detach().float(), correction=0)
        self.count += x.numel()
        self.total += x.numel() * mean.item()
        self.squares += x.numel() * (variance.item() + mean.item() ** 2)

    @property
    def deviation(self) -> float | None:
        variance = self.squares / self.count - (self.total / self.count) ** 2
        return math.sqrt(max(variance, 0.0)) if math.isfinite(variance) else None


class _Watch:
    """Hooks that collect responses. If a norm receives the output of a layer, the norm's output is the layer's
    response.
    """

    def __init__(self) -> None:
        self.spreads: dict[str, Spread] = {}
        self._last: tuple[str, Tensor] | None = None
        self._before = Spread()

    def of_layer(self, name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            spread = self.spreads.setdefault(name, Spread())
            self._last, self._before = (name, output), replace(spread)
            spread.add(output)

        return hook

    def of_norm(self, _: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if self._last and inputs[0] is self._last[1]:
            name, _layer_output = self._last
            self.spreads[name] = self._before
            self.spreads[name].add(output)
        self._last = None


@contextmanager
def watching(model: nn.Module, layers: dict[str, nn.Conv2d]) -> Iterator[dict[str, Spread]]:
    """The responses of these layers in the forward pass inside the block, in its order; the outputs are not changed.

    During this time frozen batch norms are not folded into the convolution, so the last bits of the result may differ.
    """
    watch = _Watch()
    with ExitStack() as hooks:
        for name, layer in layers.items():
            _ = hooks.callback(layer.register_forward_hook(watch.of_layer(name)).remove)
        for module in model.modules() if layers else ():
            if type(module) in RESPONSE_NORMS:
                _ = hooks.callback(module.register_forward_hook(watch.of_norm).remove)
        yield watch.spreads


def observe(
    model: nn.Module,
    batch: Batch,
    layers: dict[str, nn.Conv2d],
    *,
    precision: torch.autocast | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    lr: float = 0.0,
    grad_clip: float | None = None,
) -> tuple[float | None, tuple[LayerSignal, ...]]:
    """The loss on a batch and these layers' signals in a training step; without an `optimizer` no weight is changed.

    As in training, no update is made if the loss or a gradient is not finite.
    """
    before = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    gradients: dict[str, float | None] = {}

    def look() -> None:
        for name, layer in layers.items():
            gradients[name] = None if layer.weight.grad is None else _finite(layer.weight.grad.norm())

    forward, made = partial(model, batch), False
    precision = precision or torch.autocast(batch.images.device.type, enabled=False)
    with watching(model, layers) as spreads:
        if optimizer is None:
            losses = {name: loss.item() for name, loss in gradients_of(forward, model, precision).items()}
            look()
        else:
            try:
                step = training_step(
                    forward, model, optimizer, lr=lr, grad_clip=grad_clip, precision=precision, look=look
                )
                losses, made = step.losses, step.made
            except LossNotFinite as error:
                losses = error.losses
    signals = tuple(
        LayerSignal(name, gradients[name], spread.deviation, _moved(layers[name], before[name]) if made else None)
        for name, spread in spreads.items()
    )
    loss = sum(losses.values())
    return loss if math.isfinite(loss) else None, signals


def _moved(layer: nn.Conv2d, before: Float[Tensor, "..."]) -> float | None:
    return _finite((layer.weight.detach() - before).norm() / before.norm())


def _finite(value: Float[Tensor, ""]) -> float | None:
    number = value.item()
    return number if math.isfinite(number) else None
