"""Reads a JSON file into typed structs; the error for a file that does not fit is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from resdet.errors import UserError
from resdet.files import read_regular


def read_json(path: str | Path, kind: Any, *, expected: str) -> Any:
    """The file's content as `kind`. `expected` describes the file in words, for the message.

    NaN and Infinity, which Python's json module writes although JSON has no such numbers, are accepted here: the
    caller's checks then name the entry that contains them.
    """
    try:
        content = read_regular(Path(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        return msgspec.json.decode(content, type=kind, strict=False)
    except msgspec.DecodeError as error:
        first_error = error
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); expected {expected}") from None
    return typed(data, kind, source=str(path), expected=expected, because=str(first_error))


def typed(data: Any, kind: Any, *, source: str, expected: str, because: str = "") -> Any:
    """Converts plain dicts and lists to `kind`; a UserError names the place that does not fit."""
    try:
        return msgspec.convert(data, kind, strict=False)
    except msgspec.ValidationError as error:
        raise UserError(f"{source}: {_plain(str(error) or because)}; expected {expected}") from None


def _plain(message: str) -> str:
    """msgspec's "Expected `int`, got `str` - at `$[3].image_id`" with the place first."""
    text, at, place = message.partition(" - at ")
    return f"at {place.strip('`').removeprefix('$') or 'the top'}: {text}" if at else text
