"""The table of faults names tests that there are, and its page has a line for every row."""

import ast

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
    page = reliability.page({test: test != broken for test in TESTS_OF_FAULTS})
    lines = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| row")]
    assert len(lines) == len(ROWS)
    assert sum(line.endswith("| NOT PASSED |") for line in lines) == sum(broken in row.tests for row in ROWS)
    assert sum(line.endswith("| no test |") for line in lines) == sum(not row.tests for row in ROWS)


def test_a_new_table_leaves_the_figures_below_it_as_they_are():
    results = dict.fromkeys(TESTS_OF_FAULTS, True)
    figures = f"{reliability.FIGURES}\nmeasured | by hand\n"
    before = reliability.page({test: False for test in results}) + figures
    assert reliability.page(results, before) == reliability.page(results) + figures
    assert reliability.page(results, "another page") == reliability.page(results)
