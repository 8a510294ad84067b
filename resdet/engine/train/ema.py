"""The exponential moving average of the weights (Polyak & Juditsky 1992), which is what is evaluated and saved."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from resdet.config import EMAConfig


def average_of(model: nn.Module, ema: EMAConfig | None) -> ModelEmaV3 | None:
    """A copy of the model that follows its floating point weights and buffers; None without `train.ema`.

    The decay of an update is a pure function of its number, so a resumed run goes on exactly.
    """
    if ema is None:
        return None
    average = ModelEmaV3(model, decay=ema.decay, use_warmup=ema.warmup)
    return average.requires_grad_(requires_grad=False)


def follow(average: ModelEmaV3, model: nn.Module, *, step: int, made: Bool[Tensor, ""]) -> None:
    """Moves the average towards the weights after update number `step` (counted from 1), if that was made.

    `made` is on the device; a GPU is not waited for.
    """
    if made.device.type == "cuda":
        follow_selected(average, model, step=step, made=made)
    elif made:
        average.update(model, step=step)


def follow_selected(average: ModelEmaV3, model: nn.Module, *, step: int, made: Bool[Tensor, ""]) -> None:
    """As `follow`, without reading `made`: where it is false, the average moves towards itself."""
    average.update(_Selected(average, model, made), step=step)


class _Selected:
    """The weights of the model, or those of the average, chosen on the device."""

    def __init__(self, average: ModelEmaV3, model: nn.Module, made: Bool[Tensor, ""]) -> None:
        self._average, self._model, self._made = average, model, made

    def state_dict(self) -> dict[str, Tensor]:
        mine = self._average.module.state_dict()
        return {name: torch.where(self._made, its, mine[name]) for name, its in self._model.state_dict().items()}
