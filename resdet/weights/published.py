"""Opens any weights file in one form: resdet's names, RGB images, and a contract of the other conventions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from resdet.weights.contract import WeightContract, to_rgb
from resdet.weights.convert import FORMATS, format_of
from resdet.weights.convert.torchvision import from_torchvision
from resdet.weights.read import read_weights


@dataclass(frozen=True)
class PublishedWeights:
    """Tensors of a backbone, a classifier or a detector; `original` are the unchanged tensors of the file.

    `contract` is None if the file declares none and none is assumed.
    """

    source: str
    state: dict[str, Tensor]
    original: dict[str, Tensor]
    contract: WeightContract | None
    notes: tuple[str, ...]


def open_weights(
    path: str | Path, *, stated: WeightContract | None = None, assume_torchvision: bool = False
) -> PublishedWeights:
    """Reads a file. Its contract comes from the file's own header, otherwise from its publisher (`stated`), otherwise
    from the convention of the toolkit whose names it has, otherwise, with `assume_torchvision`, from torchvision.

    Raises UserError for a file that cannot be read.
    """
    file = read_weights(path)
    state, contract, notes = file.state, file.contract or stated, file.notes
    kind = format_of(file.state)
    if kind is not None and file.contract is None:
        converted = FORMATS[kind](file.state, str(path))
        state, contract = converted.state, stated or converted.contract
        notes = (*notes, f"names and conventions of {kind}", *converted.notes)
    elif contract is None and assume_torchvision:
        contract = replace(
            from_torchvision(state, str(path)).contract,
            source=f"{path} (no contract: torchvision's is assumed)",
        )
        notes = (*notes, "the file declares no contract: torchvision's mean, std and RGB order are assumed")
    if contract is not None:
        state, contract, flipped = to_rgb(state, contract)
        notes = (*notes, *flipped)
    return PublishedWeights(str(path), state, file.state, contract, notes)
