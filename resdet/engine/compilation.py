"""torch.compile around models: for a training by `train.compile`, for a saved model by `test.compile`."""

from __future__ import annotations

import torch
from torch import nn
from torch._dynamo.utils import counters

from resdet.config import TestConfig
from resdet.engine.machine import check_compiler


def compiled(model: nn.Module, test: TestConfig) -> nn.Module:
    """A model for prediction whose `predict` is compiled at its first call, with its weights as constants, if
    `test.compile` says so.

    Raises UserError without a compiler.
    """
    if test.compile:
        check_compiler("test.compile")
        predict = torch.compile(model.predict, options={"freezing": True})  # pyright: ignore[reportArgumentType]
        model.predict = predict  # pyright: ignore[reportAttributeAccessIssue]
    return model


def compiled_graphs() -> int:
    """How many graphs torch has compiled in this process; each new shape may add one."""
    return counters["stats"]["unique_graphs"]
