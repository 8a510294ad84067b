"""Converts timm's checkpoints, with their authors' names or timm's own, to timm's own names."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping

from torch import Tensor

from resdet.errors import UserError
from resdet.weights.convert.names import Converted
from resdet.weights.sources import timm_contract

TRANSLATIONS = ("checkpoint_filter_fn", "_filter_fn")
# The exceptions of a translation for a file of another model.
MISFITS = (KeyError, IndexError, ValueError, AttributeError, RuntimeError, TypeError)


def from_timm(state: Mapping[str, Tensor], source: str, *, architecture: str) -> Converted:
    """The complete classifier timm/<model>, its convention taken from timm's configuration of the model."""
    return Converted(timm_names(state, architecture, source), timm_contract(architecture))


def timm_names(state: Mapping[str, Tensor], architecture: str, source: str) -> dict[str, Tensor]:
    """The names after timm's own translation of published checkpoints for this model.

    In timm's files this function has one of two names.
    """
    import timm
    from timm.models import model_entrypoint

    name = architecture.removeprefix("timm/")
    module = sys.modules[model_entrypoint(name.partition(".")[0]).__module__]
    translate = next((getattr(module, name) for name in TRANSLATIONS if hasattr(module, name)), None)
    if translate is None:
        return dict(state)
    try:
        arguments = (dict(state), timm.create_model(name, pretrained=False))
        return dict(translate(*arguments[: len(inspect.signature(translate).parameters)]))
    except MISFITS as error:
        raise UserError(
            f"{source}: not a checkpoint of {architecture} ({type(error).__name__}: {error!s:.100})"
        ) from error
