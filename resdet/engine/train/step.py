"""One update of the weights: the only place where losses are computed, differentiated and followed."""

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
    """No update was made, because a loss is not finite; `losses` are all of them."""

    def __init__(self, losses: dict[str, float]) -> None:
        super().__init__(", ".join(f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)))
        self.losses = losses


@dataclass(frozen=True)
class Step:
    """Means over the processes: the losses by name, and the L2 norm of all gradients before they were clipped.

    An update whose gradient is not finite is not `made`.
    """

    losses: dict[str, float]
    grad_norm: float

    @property
    def made(self) -> bool:
        return math.isfinite(self.grad_norm)


def gradients_of(forward: Callable[[], Losses], model: nn.Module, precision: torch.autocast) -> Losses:
    """The losses, computed under `precision`; leaves the gradient of their sum, and no other, in the parameters."""
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
    """Computes the losses under `precision`, their gradients, and follows these with the learning rate `lr`.

    `look` is called when the gradients are there, before they are clipped to the norm `grad_clip` (None: not at all).
    Waits for the device once. Raises LossNotFinite, on all processes, instead of an update with such a loss.
    """
    set_learning_rate(optimizer, lr)
    losses = gradients_of(forward, model, precision)
    if look:
        look()
    norm = clip_gradients(model, grad_clip)
    *values, grad_norm = world.mean(torch.stack([*losses.values(), norm]).tolist())  # the one wait for the device
    named = dict(zip(losses, values, strict=True))
    if not all(map(math.isfinite, values)):
        raise LossNotFinite(named)
    step = Step(named, grad_norm)
    if step.made:
        _ = optimizer.step()
    return step
