"""Writes weights as safetensors with their contract in the header."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from resdet.files import whole_file, writing
from resdet.weights.contract import WeightContract


def save_weights(
    path: Path, state: Mapping[str, Tensor], contract: WeightContract, header: Mapping[str, str] | None = None
) -> None:
    """The file is written completely or not at all. `header` holds further texts, such as a model's config.

    Raises UserError if it cannot be written.
    """
    with writing(path, "choose another file"), whole_file(path) as temporary:
        tensors = {name: value.contiguous() for name, value in state.items()}
        save_file(tensors, temporary, {**contract.to_metadata(), **(header or {})})
