"""docs/guarantees.md promises only what a test holds, and CI notices when such a test did not run."""

from __future__ import annotations

import re
from typing import Literal

import pytest

from guarantee_rows import PAGE, ROOT, Row, forbid_skip, guarantee_rows

ROWS = guarantee_rows()


def test_every_row_of_the_table_is_read():
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert len(ROWS) == len(lines) - 2  # the header and the line under it


@pytest.mark.parametrize("row", ROWS, ids=[row.claim[:30] for row in ROWS])
def test_the_tests_of_a_row_exist(row: Row):
    files = list((ROOT / "tests").rglob("test_*.py"))
    names = [name for file in files for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)]
    assert row.paths or row.words
    assert all((ROOT / path).exists() for path in row.paths)
    assert all(any(word in name for name in names) for word in row.words)


def report(nodeid: str, outcome: Literal["passed", "failed", "skipped"]) -> pytest.TestReport:
    return pytest.TestReport(nodeid, (nodeid, 0, ""), {}, outcome, None, "setup")


PROMISED = "tests/models/test_against_detectron2.py::test_same_weights"


def test_a_skipped_test_of_a_row_fails_in_ci():
    failed = forbid_skip(report(PROMISED, "skipped"), ci=True, shared=True)
    assert failed.failed
    assert "Detectron2" in str(failed.longrepr)


@pytest.mark.parametrize(
    ("nodeid", "ci", "shared"),
    [
        (PROMISED, False, True),  # on somebody's own machine
        (PROMISED, True, False),  # a bare clone
        ("tests/analysis/report/test_in_browser.py::test_click", True, True),  # no row promises it
    ],
)
def test_other_skipped_tests_stay_skipped(nodeid: str, *, ci: bool, shared: bool):
    assert forbid_skip(report(nodeid, "skipped"), ci=ci, shared=shared).skipped


def test_a_test_of_a_package_that_ci_does_not_install_may_be_skipped():
    skipped = pytest.TestReport(PROMISED, (PROMISED, 0, ""), {"extra": 1}, "skipped", None, "setup")
    assert forbid_skip(skipped, ci=True, shared=True).skipped


def test_what_passed_or_failed_is_left_alone():
    for outcome in ("passed", "failed"):
        assert forbid_skip(report(PROMISED, outcome), ci=True, shared=True).outcome == outcome
