"""Weights of a whole detector: resdet's own, or torchvision's and Detectron2's as they are published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from resdet.models.weights.contract import WeightContract, to_rgb
from resdet.models.weights.convert import FORMATS, format_of
from resdet.models.weights.coverage import CoverageReport, load_checked
from resdet.models.weights.read import read_weights


def load_detector_weights(
    model: nn.Module, path: str | Path, *, reinitialise: Sequence[str] = ()
) -> tuple[CoverageReport, WeightContract | None]:
    """Loads a detector, all of it but the heads whose number of classes differs and the names in `reinitialise`.

    Returns what was loaded, and the contract that the model has to keep, for RGB images (None: a file of resdet's
    names that declares none). UserError where the file cannot be read or is of another detector.
    """
    file = read_weights(path)
    state, contract, notes = file.state, file.contract, file.notes
    kind = format_of(state)
    if kind is not None and contract is None:
        converted = FORMATS[kind](state, str(path))
        state, contract = converted.state, converted.contract
        notes = (*notes, f"names and conventions of {kind}", *converted.notes)
    if contract is not None:
        state, contract, flipped = to_rgb(state, contract)
        notes = (*notes, *flipped)
    return load_checked(model, state, source=str(path), reinitialise=reinitialise, notes=notes), contract
