"""The exponential moving average of the weights (Polyak & Juditsky 1992), which is what is evaluated and saved."""

from __future__ import annotations

from timm.utils.model_ema import ModelEmaV3
from torch import nn

from resdet.config import EMAConfig


def average_of(model: nn.Module, ema: EMAConfig | None) -> ModelEmaV3 | None:
    """A copy of the model that follows its floating point weights and buffers; None without `train.ema`.

    The decay of an update is a pure function of its number, so a resumed run goes on exactly.
    """
    if ema is None:
        return None
    average = ModelEmaV3(model, decay=ema.decay, use_warmup=ema.warmup)
    return average.requires_grad_(requires_grad=False)
