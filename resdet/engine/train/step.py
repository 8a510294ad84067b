"""One update of the weights: the only place that computes losses and gradients and applies them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

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
    with precision:
        losses = forward()
    model.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    return losses


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

    `look` is called when the gradients are computed, before they are clipped to the norm `grad_clip` (None: no
    clipping). The function waits for the device once. Raises LossNotFinite, on all processes, instead of an update with
    such a loss.
    """
    set_learning_rate(optimizer, lr)
    losses = gradients_of(forward, model, precision)
    if look:
        look()
    norm = clip_gradients(model, grad_clip)
    *values, grad_norm = world.mean(torch.stack([*losses.values(), norm]).tolist())  # the only wait for the device
    named = dict(zip(losses, values, strict=True))
    if not all(map(math.isfinite, values)):
        raise LossNotFinite(named)
    step = Step(named, grad_norm)
    if step.made:
        _ = optimizer.step()
    return step
