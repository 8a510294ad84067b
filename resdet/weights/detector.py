"""Weights of a whole detector: resdet's own, or torchvision's and Detectron2's as they are published."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from torch import nn

from resdet.weights.contract import WeightContract, to_rgb
from resdet.weights.convert import FORMATS, format_of
from resdet.weights.coverage import CoverageReport, load_checked
from resdet.weights.read import read_weights


def load_detector_weights(
    model: nn.Module,
    path: str | Path,
    *,
    reinitialise: Sequence[str] = (),
    class_names: Sequence[str] | None = None,
) -> tuple[CoverageReport, WeightContract | None]:
    """Loads a detector, all of it but the names in `reinitialise` and, for other classes, the layers of the classes.

    With the model's `class_names`, classes are the same where the file lists the same names in the same order. Without
    them, or where the file names none, they are the same where there are as many.

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
    changed = _changed_classes(contract, class_names)
    report = load_checked(
        model,
        state,
        source=str(path),
        reinitialise=reinitialise,
        new_classes=bool(changed),
        notes=(*notes, *changed),
    )
    return report, contract


def _changed_classes(contract: WeightContract | None, class_names: Sequence[str] | None) -> tuple[str, ...]:
    """A line on how the file's classes differ from the model's, none where they are the same or not known."""
    theirs = None if contract is None else contract.class_names
    if theirs is None or class_names is None or theirs == tuple(class_names):
        return ()
    label, (there, here) = next(
        (i, pair) for i, pair in enumerate(zip_longest(theirs, class_names)) if pair[0] != pair[1]
    )
    return (
        f"the class layers start anew: {len(theirs)} classes in the file, {len(class_names)} in the model, and label"
        f" {label} is {'none' if there is None else repr(there)} there, {'none' if here is None else repr(here)} here",
    )
