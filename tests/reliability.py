"""Writes the table of docs/reliability.md from a run of `pytest -m fault`: row, fault, verdict, tests and result. What
stands in the page from `FIGURES` on is written by hand and stays.
"""

from collections.abc import Mapping
from pathlib import Path

from fault_rows import ROWS, Fault

PAGE = Path(__file__).parents[1] / "docs/reliability.md"
FIGURES = "\n## Figures\n"
HEAD = """# Faults and verdicts

`python -m pytest -m fault` provokes each of these faults, checks the verdict, and writes this table. The row is that of
the project's list of faults. Verdicts: **E** an error of one line and exit code 2, **S** skipped and counted under a
policy and a budget, **F** fixed and counted, **R** a refusal, 143 the exit code after a signal.

| row | fault | verdict | tests | result |
|---|---|---|---|---|
"""


def page(results: Mapping[str, bool], before: str = "") -> str:
    """`results` say whether a test passed, by file::name below tests/; those of all rows must be there. `before` is the
    page so far.
    """
    _, heading, figures = before.partition(FIGURES)
    return HEAD + "".join(line(row, results) for row in sorted(ROWS, key=place)) + heading + figures


def place(row: Fault) -> tuple[bool, int, str]:
    """Numbers first, in their order, then the rows of security by their letters."""
    first = row.row.split(",")[0]
    return (not first.isdigit(), int(first) if first.isdigit() else 0, first)


def line(row: Fault, results: Mapping[str, bool]) -> str:
    names = ", ".join(f"`{test.rpartition('::')[2]}`" for test in row.tests)
    result = "passed" if all(results[test] for test in row.tests) else "NOT PASSED"
    return f"| {row.row} | {row.fault} | {row.verdict} | {names} | {result if row.tests else 'no test'} |\n"
