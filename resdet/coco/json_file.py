"""Reads a JSON file into typed structs, and says in one line what is wrong with one that does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from resdet.errors import UserError


def read_json(path: str | Path, kind: Any, *, expected: str) -> Any:
    """The file's content as `kind`. `expected` is what the file should be, in words, for the message.

    NaN and Infinity, which Python's json module writes although JSON has no such numbers, are let through:
    the caller's checks then name the entry they stand in.
    """
    try:
        content = Path(path).read_bytes()
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
    """Plain dicts and lists as `kind`, or a UserError that names the place."""
    try:
        return msgspec.convert(data, kind, strict=False)
    except msgspec.ValidationError as error:
        raise UserError(f"{source}: {_plain(str(error) or because)}; expected {expected}") from None


def _plain(message: str) -> str:
    """msgspec's "Expected `int`, got `str` - at `$[3].image_id`" with the place first."""
    text, at, place = message.partition(" - at ")
    return f"at {place.strip('`').removeprefix('$') or 'the top'}: {text}" if at else text
