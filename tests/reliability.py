"""Writes docs/reliability.md from a run of `pytest -m fault`: row, fault, verdict, test and result."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs/reliability.md"
HEAD = """# Faults and verdicts

`python -m pytest -m fault` provokes each of these faults, checks the verdict, and writes this table. The row is that of
the project's list of faults; a row that is not here has its tests elsewhere, or none. Verdicts: **E** an error of one
line and exit code 2, **R** a refusal, 143 the exit code after a signal.

| row | fault | verdict | test | result |
|---|---|---|---|---|
"""


def page(results: Mapping[str, tuple[Sequence[Any], bool]]) -> str:
    """`results` are the row's marker and whether the test passed, by the test's name without its parameters."""
    rows = sorted(
        (*map(str, row), f"`{name}`", "passed" if passed else "FAILED") for name, (row, passed) in results.items()
    )
    rows.sort(key=lambda row: (not row[0].isdigit(), int(row[0]) if row[0].isdigit() else 0, row))
    return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)
