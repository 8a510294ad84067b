"""The table of mutants fits the code, without running them (`python tests/mutants/run.py` does)."""

import ast

import pytest

from mutants.mutant import ROOT, Mutant
from mutants.table import MUTANTS


@pytest.mark.parametrize("file", sorted({mutant.file for mutant in MUTANTS}))
def test_every_mutant_changes_one_place_of_its_file_and_is_still_python(file: str):
    text = (ROOT / file).read_text()
    for mutant in MUTANTS:
        if mutant.file == file:
            changed = mutant.applied(text)
            assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(text)), mutant.name


def test_a_mutant_whose_text_is_gone_or_occurs_twice_is_refused():
    mutant = Mutant("a.py", "x = 1", "x = 2", ())
    assert mutant.applied("x = 1\n") == "x = 2\n"
    for text in ("y = 1\n", "x = 1\nx = 1\n"):
        with pytest.raises(ValueError, match=r"a\.py: 'x = 1' occurs [02] times and must occur once"):
            _ = mutant.applied(text)


def test_every_mutant_has_tests_that_are_there_or_a_reason():
    for mutant in MUTANTS:
        assert mutant.tests or mutant.reason, mutant.name
        for test in mutant.tests:
            file, _, name = test.partition("::")
            assert not name or f"def {name}(" in (ROOT / "tests" / file).read_text(), test
            assert (ROOT / "tests" / file).is_file(), test


def test_no_mutant_is_listed_twice():
    changes = [(mutant.file, mutant.old, mutant.new) for mutant in MUTANTS]
    assert len(changes) == len(set(changes))
    assert sum(not mutant.reason for mutant in MUTANTS) >= 60
