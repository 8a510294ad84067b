"""The table of faults: what is provoked, the verdict, and the tests that hold it, which `pytest -m fault` runs."""

from __future__ import annotations

from pathlib import Path

from faults import data, scoring, security, training

TESTS = Path(__file__).parent
ROWS = (*data.ROWS, *training.ROWS, *scoring.ROWS, *security.ROWS)
TESTS_OF_FAULTS = frozenset(test for row in ROWS for test in row.tests)


def is_of_a_fault(path: Path, name: str) -> bool:
    """Whether a test, by its file and its name without parameters, holds a row."""
    return f"{path.relative_to(TESTS).as_posix()}::{name}" in TESTS_OF_FAULTS
