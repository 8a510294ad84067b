"""Every message that docs/faq.md explains is one that the package gives; those that are easily provoked are."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from docs_pages import ROOT
from resdet.cli.main import main

PAGE = (ROOT / "docs/faq.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^### `{1,2}(.+?)\s?`{1,2}$", PAGE, re.MULTILINE)
FEWEST = 12  # literal characters by which a message is recognized
RAISED = ("UserError", "ImageError")


def text_of(node: ast.expr, constants: dict[str, str]) -> str:
    """A regular expression of what an expression may give."""
    if isinstance(node, ast.Constant):
        return re.escape(str(node.value))
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part, constants) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return text_of(node.value, constants)
    if isinstance(node, ast.Name) and node.id in constants:
        return re.escape(constants[node.id])
    return ".*"


def constants_of(tree: ast.Module) -> dict[str, str]:
    """The texts that a module gives names to."""
    return {
        node.targets[0].id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }  # fmt: skip


def patterns() -> list[str]:
    """A regular expression for each message that is raised somewhere in the package."""
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in sorted((ROOT / "resdet").rglob("*.py"))]
    everywhere = {name: text for tree in trees for name, text in constants_of(tree).items()}
    return [
        text_of(call.args[0], everywhere | constants_of(tree))
        for tree in trees
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and call.args and getattr(call.func, "id", "") in RAISED
    ]


PATTERNS = [pattern for pattern in patterns() if len(re.sub(r"\\(.)|\.\*", r"\1", pattern)) >= FEWEST]


@pytest.mark.parametrize("message", QUOTED)
def test_a_message_of_the_page_is_one_of_the_package(message: str) -> None:
    assert any(re.fullmatch(f"(?:.*: )?{pattern}", message) for pattern in PATTERNS)


def test_a_message_that_nothing_gives_is_not_found() -> None:
    assert not any(
        re.fullmatch(f"(?:.*: )?{pattern}", "runs/a: is locked; delete runs/a/.lock") for pattern in PATTERNS
    )


def holds_a_run(folder: Path) -> None:
    (folder / "runs/a").mkdir(parents=True)
    _ = (folder / "runs/a/config.yaml").write_text("task: detection\n")


def holds_notes(folder: Path) -> None:
    (folder / "runs/a").mkdir(parents=True)
    _ = (folder / "runs/a/notes.txt").write_text("mine")


def holds_a_table(folder: Path) -> None:
    _ = (folder / "found.csv").write_text("mine")


def is_a_folder(folder: Path) -> None:
    (folder / "cells").mkdir()


def is_empty(_: Path) -> None:
    pass


PROVOKED = [
    (holds_a_run, "train nano --output runs/a"),
    (holds_notes, "train nano --output runs/a"),
    (is_empty, "evaluate runs/b"),
    (is_empty, "train quikstart --output runs/a"),
    (is_empty, "train nano model.num_classes=80 --output runs/a"),
    (is_empty, "train nano model.backbone.norm=bn train.batch_size=1 --output runs/a"),
    (is_empty, "train nano model.bakbone.name=vgg16 --output runs/a"),
    (is_a_folder, "check-data cells"),
]


@pytest.mark.parametrize(("prepare", "command"), PROVOKED, ids=[command for _, command in PROVOKED])
def test_a_message_can_be_provoked_and_is_on_the_page(
    prepare: Callable[[Path], None],
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    assert main(command.split()) == 2
    given = words(capsys.readouterr().err)
    assert max(len(words(message) & given) / len(words(message)) for message in QUOTED) > 0.6


def words(message: str) -> set[str]:
    return set(re.findall(r"\w{4,}", message))
