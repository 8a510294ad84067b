"""A weights file as all of resdet sees it: resdet's names, RGB images, and a contract that says the rest."""

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
    """Tensors of a backbone, a classifier or a detector; `original` are those of the file, before any change.

    `contract` is None where the file declares none and nothing is assumed.
    """

    source: str
    state: dict[str, Tensor]
    original: dict[str, Tensor]
    contract: WeightContract | None
    notes: tuple[str, ...]


def open_weights(
    path: str | Path, *, stated: WeightContract | None = None, assume_torchvision: bool = False
) -> PublishedWeights:
    """Reads a file; who is believed: the file's own header, then its publisher (`stated`), then the habit of the
    toolkit whose names it has, then, with `assume_torchvision`, torchvision's, for a file of which nothing is said.

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
