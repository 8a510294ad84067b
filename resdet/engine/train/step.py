"""One update of the weights: the only place that computes losses and gradients and applies them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from resdet.engine.distributed import World
from resdet.engine.train.optim import clip_gradients, set_learning_rate

ALONE = World()
Losses = Mapping[str, Float[Tensor, ""]]


class LossNotFinite(Exception):
    """Raised instead of an update if a loss is not finite; `losses` are all losses."""

    def __init__(self, losses: dict[str, float]) -> None:
        super().__init__(", ".join(f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)))
        self.losses = losses


@dataclass(frozen=True)
class Step:
    """Means over the processes: the losses by name, and the L2 norm of all gradients before they were clipped.

    `made` is False if a gradient is not finite; the weights are then not changed.
    """

    losses: dict[str, float]
    grad_norm: float

    @property
    def made(self) -> bool:
        return math.isfinite(self.grad_norm)


def gradients_of(forward: Callable[[], Losses], model: nn.Module, precision: torch.autocast) -> Losses:
    """Computes the losses under `precision` and replaces the gradients of the parameters by the gradient of
    their sum.
    """
    return summed_gradients([forward], model, precision)


def summed_gradients(
    forwards: Sequence[Callable[[], Losses]],
    model: nn.Module,
    precision: torch.autocast,
    *,
    unsynced: Callable[[], AbstractContextManager[None]] = nullcontext,
    scaler: GradScaler | None = None,
) -> Losses:
    """As `gradients_of`, of the sum over several functions, of which each is freed before the next one is computed.

    All but the last run inside `unsynced()`. The gradients are multiplied by the scale of `scaler`. Returns the sum of
    the losses, by name.
    """
    model.zero_grad()
    sums: dict[str, Tensor] = {}
    for left, forward in zip(reversed(range(len(forwards))), forwards, strict=True):
        with unsynced() if left else nullcontext():
            with precision:
                losses = forward()
            total = torch.stack(list(losses.values())).sum()
            (total if scaler is None else scaler.scale(total)).backward()
        sums = {name: sums[name] + loss.detach() if sums else loss.detach() for name, loss in losses.items()}
    return sums


def training_step(
    forward: Callable[[], Losses],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    lr: float,
    grad_clip: float | None,
    precision: torch.autocast,
    world: World = ALONE,
    look: Callable[[], None] | None = None,
) -> Step:
    """Computes the losses under `precision`, their gradients, and updates the weights with the learning rate `lr`.

    `look` is called when the gradients are computed, before they are clipped. See `apply_gradients`.
    """
    losses = gradients_of(forward, model, precision)
    if look:
        look()
    return apply_gradients(losses, model, optimizer, lr=lr, grad_clip=grad_clip, world=world)


def apply_gradients(
    losses: Losses,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    lr: float,
    grad_clip: float | None,
    world: World = ALONE,
    scaler: GradScaler | None = None,
) -> Step:
    """Updates the weights with the gradients of `losses`, clipped to the norm `grad_clip` (None: no clipping).

    With a `scaler` the gradients are divided by its scale first, which is then adapted. The function waits for the
    device once. Raises LossNotFinite, on all processes, instead of an update with such a loss.
    """
    set_learning_rate(optimizer, lr)
    if scaler is not None:
        scaler.unscale_(optimizer)
    norm = clip_gradients(model, grad_clip)
    *values, grad_norm = world.mean(torch.stack([*losses.values(), norm]).tolist())  # the only wait for the device
    named = dict(zip(losses, values, strict=True))
    if not all(map(math.isfinite, values)):
        raise LossNotFinite(named)
    step = Step(named, grad_norm)
    if step.made:
        _ = optimizer.step()
    if scaler is not None:
        scaler.update()
    return step
