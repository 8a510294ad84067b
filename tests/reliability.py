"""Writes docs/reliability.md: the table from a run of `pytest -m fault` (row, fault, verdict, tests and result), and
below it what the scripts in tests/figures and tests/mutants counted, which tests/figures/record.py keeps in a file.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from fault_rows import ROWS
from faults.row import Fault

PAGE = Path(__file__).parents[1] / "docs/reliability.md"
COUNTED = Path(__file__).parent / "figures/counted.json"
FIGURES = """
## Figures

What longer runs of these scripts counted, on two cores that other work shared. The tests of the marker `slow` run them
with small numbers (`tests/test_figures.py`). Seconds are those of the processor.

| command | date | counted |
|---|---|---|
"""
NOT_PROVOKED = """
## What cannot be provoked or noticed here

* EIO and EDQUOT are raised by a hook at each write, not by a disk: a disk that fails so cannot be had here. ENOSPC is
  provoked both ways, by the hook and by a small tmpfs.
* The power loss is replayed: the states of the folder are made from the record of what was written and synced. No power
  was cut.
* A JPEG whose data lacks some bytes in the middle, so that the decoder finds its way again behind the gap, is a valid
  file with other pixels. No decoder can notice it: the format has no checksum. A gap behind which the decoder warns of
  extraneous bytes is accepted too, because some cameras write such bytes into sound files. What lacks its end is
  refused.
"""
HEAD = """# Faults and verdicts

`python -m pytest -m fault` provokes each of these faults, checks the verdict, and writes this table. The row is that of
the project's list of faults. Verdicts: **E** an error of one line and exit code 2, **S** skipped and counted under a
policy and a budget, **F** fixed and counted, **R** a refusal, 143 the exit code after a signal.

| row | fault | verdict | tests | result |
|---|---|---|---|---|
"""


def page(results: Mapping[str, bool]) -> str:
    """`results` say whether a test passed, by file::name below tests/; those of all rows must be there."""
    return with_figures(HEAD + "".join(line(row, results) for row in sorted(ROWS, key=place)))


def with_figures(text: str) -> str:
    """A page with the figures that are kept now below its table."""
    table = text.partition("\n## ")[0].rstrip("\n") + "\n"
    counted: list[dict[str, str]] = json.loads(COUNTED.read_text())
    return (
        table
        + FIGURES
        + "".join(f"| `{row['command']}` | {row['date']} | {row['counted']} |\n" for row in counted)
        + (NOT_PROVOKED)
    )


def place(row: Fault) -> tuple[bool, int, str]:
    """Numbers first, in their order, then the rows of security by their letters."""
    first = row.row.split(",")[0]
    return (not first.isdigit(), int(first) if first.isdigit() else 0, first)


def line(row: Fault, results: Mapping[str, bool]) -> str:
    names = ", ".join(f"`{test.rpartition('::')[2]}`" for test in row.tests)
    result = "passed" if all(results[test] for test in row.tests) else "NOT PASSED"
    return f"| {row.row} | {row.fault} | {row.verdict} | {names} | {result if row.tests else 'no test'} |\n"
