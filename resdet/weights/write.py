"""Writes weights as safetensors with their contract in the header."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from resdet.weights.contract import WeightContract


def save_weights(path: Path, state: Mapping[str, Tensor], contract: WeightContract) -> None:
    """The file appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        save_file({name: value.contiguous() for name, value in state.items()}, temporary, contract.to_metadata())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
