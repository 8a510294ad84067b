"""The rows of the table in docs/guarantees.md, and the rule that none of their tests is skipped in CI."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


@dataclass(frozen=True)
class Row:
    """A claim, and what holds it: the tests below `paths`, or those of whose names one of `words` is a part."""

    claim: str
    paths: tuple[str, ...]
    words: tuple[str, ...]

    def holds(self, nodeid: str) -> bool:
        """Whether a test, by its node id from the root of the repository, belongs to the row."""
        file = nodeid.partition("::")[0]
        under = any(file == path or file.startswith(f"{path}/") for path in self.paths)
        return under or any(word in nodeid for word in self.words)


PAGE = ROOT / "docs/guarantees.md"


def guarantee_rows() -> list[Row]:
    text = PAGE.read_text(encoding="utf-8")
    return [row_of(claim, command) for claim, command in re.findall(r"^\| (.+?) \| `pytest (.+?)` \|$", text, re.M)]


def row_of(claim: str, command: str) -> Row:
    arguments = shlex.split(command)
    if arguments[0] == "-k":
        return Row(claim, (), tuple(arguments[1].split(" or ")))
    return Row(claim, tuple(arguments), ())


def forbid_skip(report: pytest.TestReport, *, ci: bool, shared: bool) -> pytest.TestReport:
    """A test of a row that was skipped in CI has failed: its claim was not checked. A bare clone, without ../shared,
    lacks what some of them compare with, so there they may be skipped; so may a test of a package of an extra, of which
    no row speaks."""
    if report.skipped and not hasattr(report, "wasxfail") and ci and shared and "extra" not in report.keywords:
        rows = [row for row in guarantee_rows() if row.holds(report.nodeid)]
        if rows:
            report.outcome = "failed"
            report.longrepr = f"skipped in CI, so nothing holds this claim of docs/guarantees.md: {rows[0].claim}"
    return report
