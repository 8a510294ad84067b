"""The record of a converted file, and the translation of names: the first rule that matches a whole name applies."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from resdet.errors import UserError
from resdet.text import first_few
from resdet.weights.contract import WeightContract

Rules = Sequence[tuple[str, str]]

# The tensors of a convolution and its normalization, in all toolkits.
TENSOR = r"(weight|bias|running_mean|running_var|num_batches_tracked)"


@dataclass(frozen=True)
class Converted:
    """Tensors with resdet's names, their contract, and notes about the conversion."""

    state: dict[str, Tensor]
    contract: WeightContract
    notes: tuple[str, ...] = ()


def translate(name: str, rules: Rules) -> str | None:
    """The new name; "" for a tensor that resdet does not use; None if no rule matches."""
    for pattern, replacement in rules:
        if found := re.fullmatch(pattern, name):
            return found.expand(replacement)
    return None


def renamed(state: Mapping[str, Tensor], rules: Rules, *, source: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors under new names, and a note about the tensors that are not used.

    Raises UserError if a name is unknown or two names become equal: the file then has another format than stated.
    """
    new: dict[str, Tensor] = {}
    unknown, left_out = [], []
    for name, value in state.items():
        translated = translate(name, rules)
        if translated is None:
            unknown.append(name)
        elif not translated:
            left_out.append(name)
        elif translated in new:
            raise UserError(f"{source}: two of its tensors become {translated} (the second is {name!a})")
        else:
            new[translated] = value
    if unknown:
        raise UserError(f"{source}: {len(unknown)} of {len(state)} names are not of this format: {first_few(unknown)}")
    if not new:
        raise UserError(f"{source}: none of its tensors has a place in resdet: {first_few(left_out)}")
    return new, ((f"left out, resdet has no place for them: {first_few(left_out)}",) if left_out else ())


# For a single second stage, and for the first stage of a cascade.
CLASSIFIERS = ("roi_heads.box_predictor.cls_score.weight", "roi_heads.box_predictor.0.cls_score.weight")


def class_rows(state: Mapping[str, Tensor]) -> int | None:
    """K, the number of object classes, from the box classifier (which has K + 1 rows)."""
    rows = next((state[name] for name in CLASSIFIERS if name in state), None)
    return None if rows is None else len(rows) - 1
