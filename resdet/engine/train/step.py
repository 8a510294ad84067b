"""One update of the weights: the only place that computes losses and gradients and applies them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from resdet.engine.distributed import World
from resdet.engine.train.optim import clip_gradients, set_learning_rate
from resdet.engine.train.optimizers import step_if

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


@runtime_checkable
class Copy(Protocol):
    """A copy that is under way, such as a torch.cuda.Event after it."""

    def synchronize(self) -> None:
        """Waits until it is done."""


@dataclass(frozen=True)
class Result:
    """The result of an update, which a GPU may not have computed yet.

    `finite` is on the device: whether the update was made, because all losses and gradients are finite. `values` are
    the losses and the norm of the gradients, on the host; they are there when `copied` (None on a CPU) is done.
    """

    names: tuple[str, ...]
    finite: Bool[Tensor, ""]
    values: Float[Tensor, " V"]
    copied: Copy | None

    @classmethod
    def of(cls, names: tuple[str, ...], finite: Bool[Tensor, ""], values: Float[Tensor, " V"]) -> Result:
        """Starts the copy of the values to the host, into pinned memory, without waiting for it."""
        if values.device.type != "cuda":
            return cls(names, finite, values, None)
        there = values.to("cpu", non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        return cls(names, finite, there, copied)

    def read(self) -> Step:
        """Waits until the values are there. Raises LossNotFinite, on all processes, for such a loss."""
        if self.copied is not None:
            self.copied.synchronize()
        *values, grad_norm = self.values.tolist()
        named = dict(zip(self.names, values, strict=True))
        if not all(map(math.isfinite, values)):
            raise LossNotFinite(named)
        return Step(named, grad_norm)


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

    `look` is called when the gradients are computed, before they are clipped. Waits for the device. Raises
    LossNotFinite instead of an update with such a loss.
    """
    losses = gradients_of(forward, model, precision)
    if look:
        look()
    return apply_gradients(losses, model, optimizer, lr=lr, grad_clip=grad_clip, world=world).read()


def apply_gradients(
    losses: Losses,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    lr: float,
    grad_clip: float | None,
    world: World = ALONE,
    scaler: GradScaler | None = None,
) -> Result:
    """Updates the weights with the gradients of `losses`, clipped to the norm `grad_clip` (None: no clipping).

    Nothing is updated, on any process, if a loss or a gradient is not finite. With a `scaler` the gradients are divided
    by its scale first, which is then adapted. With a fused optimizer the function does not wait for the device
    (`step_if`).
    """
    set_learning_rate(optimizer, lr)
    if scaler is not None:
        scaler.unscale_(optimizer)
    norm = clip_gradients(model, grad_clip)
    values = world.mean_there(torch.stack([*losses.values(), norm]))
    finite = values.isfinite().all()
    step_if(finite, optimizer)
    if scaler is not None:
        scaler.update()
    return Result.of(tuple(losses), finite, values)
