"""The help of every command fits the terminal, explains every option, and gives examples that are commands."""

from __future__ import annotations

import argparse
import importlib
import shlex

import pytest

from resdet.cli.help import filled
from resdet.cli.main import COMMANDS, main, overview, parser_of


@pytest.fixture(autouse=True)
def columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def help_of(name: str) -> str:
    return parser_of(name, importlib.import_module(COMMANDS[name])).format_help()


@pytest.mark.parametrize("name", COMMANDS)
def test_no_line_of_a_help_is_wider_than_the_terminal(name: str) -> None:
    assert [line for line in help_of(name).splitlines() if len(line) > 80] == []


def test_the_overview_fits_80_columns_too_and_says_how_to_begin() -> None:
    text = overview()
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert text.index("resdet train quickstart") < text.index("convert-weights")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_is(name: str) -> None:
    """Not only its default, and not only what it belongs to."""
    parser = parser_of(name, importlib.import_module(COMMANDS[name]))
    for action in parser._actions:
        said = action.help or ""
        assert said.partition("(")[0].strip(), action.dest
        assert not said.startswith("of "), action.dest


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_examples_and_they_parse(name: str) -> None:
    before, marker, examples = help_of(name).partition("examples:\n")
    assert before
    assert marker
    lines = [line.strip() for line in examples.partition("\n\n")[0].replace("\\\n", " ").splitlines()]
    mine = [line.rpartition("| ")[2] for line in lines if f"resdet {name} " in line or line == f"resdet {name}"]
    assert mine, "an example of this very command"
    for line in mine:
        words = shlex.split(line.partition(" > ")[0])
        _: argparse.Namespace = parser_of(name, importlib.import_module(COMMANDS[name])).parse_intermixed_args(
            words[2:]
        )


def test_a_paragraph_is_filled_and_a_long_example_goes_on_after_a_backslash() -> None:
    assert filled("one two\nthree", 9) == "one two\nthree"
    assert filled("one two\nthree", 20) == "one two three"
    assert filled("  resdet a bbbbbb --c d", 80) == "examples:\n  resdet a bbbbbb --c d"
    assert filled("  resdet a bbbbbb --c d", 20) == "examples:\n  resdet a bbbbbb \\\n      --c d"
    assert filled("  resdet a --output DIR", 22) == "examples:\n  resdet a \\\n      --output DIR", "no option alone"


def test_the_help_of_a_wide_terminal_is_read_easily(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["--help"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100
