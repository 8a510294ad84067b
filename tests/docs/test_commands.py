"""Every command in the documentation parses, and every key of a config that it names exists."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from docs_pages import PAGES, arguments_of, console_blocks, inline_code, lines_of, name_of
from resdet.cli.main import COMMANDS, parser_of
from resdet.config.declare import walked
from resdet.config.tree import Config

PATHS = {declaration.path for declaration in walked(Config)}
GROUPS = ("model", "data", "train", "optim", "eval", "test")
KEY = re.compile(rf"(?<![\w.])(?:{'|'.join(GROUPS)})\.[a-z]\w*(?:\.\w+)*(?![\w.]*\()")
OVERRIDE = re.compile(r"([a-z]\w*(?:\.\w+)+)=(?!=)")
SCRIPTS = ("on-gpu", "serve-load")  # of tools/, beside the commands
# A file such as model.onnx looks like a key.
FILE = re.compile(r"\.(?:onnx|safetensors|plan|pth|json|py|yaml|txt|csv)$")


def commands(text: str) -> list[str]:
    """All command lines of a page: of its blocks, and in its sentences."""
    lines = [line for block in console_blocks(text) for line in lines_of(block)]
    return [line for line in [*lines, *inline_code(text)] if arguments_of(line)]


def test_commands_are_found_in_blocks_and_sentences() -> None:
    page = (
        "a\n\n    resdet train x \\\n        train.steps=3   # why\n\n```console\nresdet new a\n```\n"
        "`tools/score.py A B` b\n"
    )
    assert [arguments_of(line) for line in commands(page)] == [
        ["new", "a"], ["train", "x", "train.steps=3"], ["score", "A", "B"],
    ]  # fmt: skip
    assert arguments_of("torchrun --nproc-per-node=8 tools/train.py X") == ["train", "X"]
    assert arguments_of("import resdet") is None


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_of_a_page_parses(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in commands(page.read_text(encoding="utf-8")):
        words = arguments_of(line)
        assert words is not None
        name, *arguments = words
        if name in SCRIPTS or not (arguments or name in ("doctor", "configs", "models")):
            assert name in (*SCRIPTS, *COMMANDS), line  # named alone, in a sentence
            continue
        assert name in COMMANDS, line
        given = [word for word in arguments if word not in ("...", "[key=value", "...]", "or")]
        try:
            _ = parser_of(name, importlib.import_module(COMMANDS[name])).parse_intermixed_args(given)
        except SystemExit as leaving:
            if leaving.code == 0:  # --help
                continue
            said = capsys.readouterr().err
            in_part = "the following arguments are required" in said or "expected one argument" in said
            assert in_part, (line, said)
            assert line in inline_code(page.read_text(encoding="utf-8")), "a line of a block is whole"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_key_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    sentences = re.sub(r"^### .*$", "", text, flags=re.MULTILINE)  # the mistakes of docs/faq.md
    named = {key for code in inline_code(sentences) for key in KEY.findall(code)}
    named |= {key for line in commands(sentences) for key in OVERRIDE.findall(line)}
    assert sorted(key for key in named - PATHS if not FILE.search(key) and not is_in_a_dict(key)) == []


def is_in_a_dict(key: str) -> bool:
    """Whether a key stands below one that takes a mapping of any names, such as optim.arguments.nesterov."""
    return key.startswith(("optim.arguments.", "data.rename.", "data.augment.transforms."))
