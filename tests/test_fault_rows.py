"""The table of faults names tests that there are, and its page has a line for every row."""

import ast
import json
from pathlib import Path

import pytest

import reliability
from fault_rows import ROWS, TESTS, TESTS_OF_FAULTS


@pytest.mark.parametrize("test", sorted(TESTS_OF_FAULTS))
def test_a_test_that_the_table_names_is_there(test: str):
    file, _, name = test.partition("::")
    functions = {node.name for node in ast.parse((TESTS / file).read_text()).body if isinstance(node, ast.FunctionDef)}
    assert name in functions


def test_the_page_has_a_line_for_every_row_and_says_what_did_not_pass():
    broken = ROWS[0].tests[0]
    page = reliability.page({test: test != broken for test in TESTS_OF_FAULTS}).partition("\n## ")[0]
    lines = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| row")]
    assert len(lines) == len(ROWS)
    assert sum(line.endswith("| NOT PASSED |") for line in lines) == sum(broken in row.tests for row in ROWS)
    assert sum(line.endswith("| no test |") for line in lines) == sum(not row.tests for row in ROWS)


def test_new_figures_leave_the_table_above_them_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reliability, "COUNTED", tmp_path / "counted.json")
    _ = reliability.COUNTED.write_text("[]")
    table = reliability.page(dict.fromkeys(TESTS_OF_FAULTS, False))
    row = {"command": "kills.py 20", "date": "2026-11-27", "counted": "100 SIGKILLs"}
    _ = reliability.COUNTED.write_text(json.dumps([row]))
    page = reliability.with_figures(table)
    assert "| `kills.py 20` | 2026-11-27 | 100 SIGKILLs |" in page.splitlines()
    assert set(table.splitlines()) < set(page.splitlines())
    _ = reliability.COUNTED.write_text("[]")
    assert reliability.with_figures(page) == table


def test_the_page_has_the_figures_that_are_kept():
    page = reliability.PAGE.read_text()
    assert page == reliability.with_figures(page), "run tests/figures/record.py"
