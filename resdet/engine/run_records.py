"""Reads the files of a run, which may be damaged: what is readable is used, and notes name what is not."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resdet.errors import UserError
from resdet.files import read_regular

Figures = dict[str, float | None]


def text_of(path: Path) -> str:
    try:
        return read_regular(path).decode()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not text in UTF-8; is it damaged?") from None


def records_of(path: Path, notes: list[str]) -> list[tuple[float, Figures]]:
    """The lines that are objects with a step. The last line may be cut off if the run was killed."""
    records: list[tuple[float, Figures]] = []
    damaged: list[int] = []
    try:
        lines = read_regular(path).splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    for i, line in enumerate(lines, start=1):
        values = finite(decoded(line))
        step = values.pop("step", None)
        if step is not None:
            records.append((step, values))
        elif line.strip():
            damaged.append(i)
    if damaged:
        notes.append(f"{path.name}: {len(damaged)} of {len(lines)} lines are damaged, the first is line {damaged[0]}")
    return sorted(records, key=lambda record: record[0])


def object_of(path: Path, notes: list[str]) -> dict[str, Any]:
    """The content of a file with one JSON object; empty if the file is absent, and with a note if it is damaged."""
    if not path.exists():
        return {}
    try:
        content = decoded(read_regular(path))
    except OSError as error:
        notes.append(f"{path.name}: cannot be read ({error.strerror})")
        return {}
    if not isinstance(content, dict):
        notes.append(f"{path.name}: is damaged")
        return {}
    return content


def decoded(data: bytes) -> Any:
    """The JSON value in `data`; None if `data` is not JSON."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def finite(content: Any) -> Figures:
    """The numbers of an object; a number that is not finite becomes None."""
    if not isinstance(content, Mapping):
        return {}
    return {
        str(name): number(value)
        for name, value in content.items()
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    }


def texts_by_id(content: Any) -> dict[int, str]:
    """The texts of an object whose keys are ids."""
    if not isinstance(content, Mapping):
        return {}
    return {int(key): str(text) for key, text in content.items() if re.fullmatch(r"-?[0-9]{1,19}", str(key))}


def number(value: float | int | None) -> float | None:
    try:
        return float(value) if value is not None and math.isfinite(value) else None
    except OverflowError:  # JSON's whole numbers have no upper limit
        return None


def last_evaluation(records: list[tuple[float, Figures]]) -> tuple[float | None, Figures]:
    """The last line with figures of an evaluation; their names contain a slash."""
    for step, values in reversed(records):
        figures = {name: value for name, value in values.items() if "/" in name}
        if figures:
            return step, figures
    return None, {}


def step_of(line: str) -> float:
    """The step of a line; infinity for a line that was cut off because the run was killed."""
    step = finite(decoded(line.encode())).get("step")
    return math.inf if step is None else step
