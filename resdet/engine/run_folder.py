"""What a run's folder holds, read back: config, metrics over time, last figures, data report, detections."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resdet.config import Config, config_from_yaml
from resdet.engine.log import METRICS
from resdet.errors import UserError

CONFIG, FIGURES, DATA, PREDICTIONS = "config.yaml", "eval.json", "data_report.json", "predictions.json"

Figures = dict[str, float | None]


@dataclass(frozen=True)
class RunFolder:
    """`records` are the lines of metrics.jsonl in the order of their steps; `figures` those of the last evaluation,
    empty before the first; `notes` say what could not be read."""

    path: Path
    config: Config
    config_text: str
    records: list[tuple[float, Figures]]
    figures: Figures
    step: int | None
    backend: str | None
    data: dict[str, dict[str, Any]]
    notes: list[str]

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def predictions(self) -> Path | None:
        """The detections of the last evaluation, a COCO results file."""
        path = self.path / PREDICTIONS
        return path if path.is_file() else None

    def series(self, name: str) -> tuple[list[float], list[float | None]]:
        """The steps at which a figure was written, and its values."""
        found = [(step, values[name]) for step, values in self.records if name in values]
        return [step for step, _ in found], [value for _, value in found]


def read_run(path: Path) -> RunFolder:
    """Reads the folder that `resdet train` wrote. Raises UserError for one that has no config or no metrics."""
    for name in (CONFIG, METRICS):
        if not (path / name).is_file():
            raise UserError(f"{path}: is no run folder, for it has no {name}; give the --output of resdet train")
    notes: list[str] = []
    config_text = _text(path / CONFIG)
    records = _records(path / METRICS, notes)
    written = _object(path / FIGURES, notes)
    figures, backend = _finite(written), written.get("backend")
    step = figures.pop("step", None)
    if not figures:
        step, figures = _last_evaluation(records)
    data = _object(path / DATA, notes)
    return RunFolder(
        path=path,
        config=config_from_yaml(config_text, str(path / CONFIG)),
        config_text=config_text,
        records=records,
        figures=figures,
        step=None if step is None else int(step),
        backend=backend if isinstance(backend, str) else None,
        data={name: report for name, report in data.items() if isinstance(report, dict)},
        notes=notes,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not text in UTF-8; is it damaged?") from None


def _records(path: Path, notes: list[str]) -> list[tuple[float, Figures]]:
    """The lines that are objects with a step. A run that was killed may leave a line cut off."""
    records: list[tuple[float, Figures]] = []
    damaged: list[int] = []
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    for i, line in enumerate(lines, start=1):
        values = _finite(_decoded(line))
        step = values.pop("step", None)
        if step is not None:
            records.append((step, values))
        elif line.strip():
            damaged.append(i)
    if damaged:
        notes.append(f"{path.name}: {len(damaged)} of {len(lines)} lines are damaged, the first is line {damaged[0]}")
    return sorted(records, key=lambda record: record[0])


def _object(path: Path, notes: list[str]) -> dict[str, Any]:
    """A file that holds one JSON object; empty where it is absent, and with a note where it is damaged."""
    if not path.exists():
        return {}
    try:
        content = _decoded(path.read_bytes())
    except OSError as error:
        notes.append(f"{path.name}: cannot be read ({error.strerror})")
        return {}
    if not isinstance(content, dict):
        notes.append(f"{path.name}: is damaged")
        return {}
    return content


def _decoded(data: bytes) -> Any:
    """The JSON in `data`, None where it is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _finite(content: Any) -> Figures:
    """The numbers of an object; what is not finite is undefined."""
    if not isinstance(content, Mapping):
        return {}
    return {
        str(name): _number(value)
        for name, value in content.items()
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    }


def _number(value: float | int | None) -> float | None:
    try:
        return float(value) if value is not None and math.isfinite(value) else None
    except OverflowError:  # JSON's whole numbers have no end
        return None


def _last_evaluation(records: list[tuple[float, Figures]]) -> tuple[float | None, Figures]:
    """The last line with figures of an evaluation, whose names have a slash."""
    for step, values in reversed(records):
        figures = {name: value for name, value in values.items() if "/" in name}
        if figures:
            return step, figures
    return None, {}
