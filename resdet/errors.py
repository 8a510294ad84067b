"""The error for a user's mistake: one line with a remedy, and exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


class UserError(Exception):
    """A mistake in the user's input (config, file, argument).

    The message is one line that names the file, the ids and the value, and gives the remedy. Commands print it without
    a traceback and exit with code 2.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'resnet50'?"` for a similar name, otherwise the list of known names."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


def row_of(table: Mapping[str, T], name: str, key: str) -> T:
    """The row of a literal table that a config key (or an option) names. Raises UserError for an unknown name."""
    if name not in table:
        raise UserError(f"{key}={name} is not known{did_you_mean(name, table)}")
    return table[name]
