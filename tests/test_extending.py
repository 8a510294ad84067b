"""Every recipe of docs/extending.md is followed to the letter, in an empty folder."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from resdet.cli.main import COMMANDS, WITH_PLUGINS, main
from resdet.config import config_from_yaml, load_config
from resdet.errors import UserError
from resdet.plugins import load_plugins, loaded_plugins

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
SECTIONS = {section.splitlines()[0]: section for section in PAGE.split("\n## ")[1:]}
ADDED = {  # what the output of a recipe shows
    "A backbone": "tiny_net",
    "A neck": "mean_fpn",
    "A head": "mean_fc",
    "A loss": "squared",
    "A data format": "squares",
    "A metric": "found",
    "An augmentation": "noise",
    "A command": "parameters",
    "From Python": "TinyNet",
}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def write_files(folder: Path) -> None:
    """Every Python block of the page under the name in its first line, and a link to the configs."""
    (folder / "configs").symlink_to(ROOT / "configs")
    for block in blocks(PAGE, "python"):
        name = block.splitlines()[0].removeprefix("# ")
        assert re.fullmatch(r"\w+\.py", name), name
        _ = (folder / name).write_text(block)


def run_command(line: str, folder: Path) -> str:
    """What one line of a console block prints; it must end well."""
    program, *arguments = shlex.split(line)
    start = {"resdet": ["-m", "resdet.cli.main"], "python": []}[program]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *start, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_has_a_recipe_for_each_part():
    assert SECTIONS.keys() == ADDED.keys()


@pytest.mark.parametrize("title", ADDED)
def test_a_recipe_works_as_it_is_written(title: str, tmp_path: Path):
    write_files(tmp_path)
    (console,) = blocks(SECTIONS[title], "console")
    for line in console.splitlines():
        shown = run_command(line, tmp_path)
        assert ADDED[title] in shown or ADDED[title] in line
        if "resdet train" in line:
            assert "step" in shown
    if title == "A metric":
        figures = json.loads((tmp_path / "runs/found/eval.json").read_text())
        assert 0 <= figures["mine/found"] <= 1
        assert "bbox/AP" in figures


@pytest.mark.parametrize("title", [title for title in ADDED if title not in ("A command", "From Python")])
def test_without_its_plugin_a_name_of_ones_own_is_refused(
    title: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    (console,) = blocks(SECTIONS[title], "console")
    arguments = shlex.split(console.splitlines()[-1])[1:]
    at = arguments.index("--plugin")
    given = [*arguments[:at], *arguments[at + 2 :]]
    monkeypatch.chdir(tmp_path)
    assert main([str(ROOT / text) if text.startswith("configs/") else text for text in given]) == 2
    assert ADDED[title] in capsys.readouterr().err


def test_the_page_names_the_commands_that_take_a_plugin():
    named = PAGE[PAGE.index("The commands with this option are") : PAGE.index("No config, checkpoint")]
    assert set(re.findall(r"`([a-z-]+)`", named)) == WITH_PLUGINS & COMMANDS.keys()


def test_no_config_names_a_plugin():
    for override in ("plugin=mine.py", "train.plugin=mine.py", "plugins=[mine.py]"):
        with pytest.raises(UserError):
            _ = load_config(overrides=[override])
    with pytest.raises(UserError):
        _ = config_from_yaml("plugin: mine.py", "config.yaml")


def test_a_plugin_runs_once_and_may_import_its_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    _ = (tmp_path / "neighbour_of_a_plugin.py").write_text("RUNS = []\n")
    file = tmp_path / "plugin_for_a_test.py"
    _ = file.write_text("import neighbour_of_a_plugin\nneighbour_of_a_plugin.RUNS.append(1)\n")
    load_plugins([file, str(file)])
    load_plugins([file])
    assert sys.modules["neighbour_of_a_plugin"].RUNS == [1]
    assert loaded_plugins()[-1] == file.resolve()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.py", None, "absent.py does not exist"),
        ("notes.txt", "x = 1", "notes.txt is not a Python file"),
        ("json.py", "x = 1", "there is another module 'json'"),
        ("my-net.py", "x = 1", "'my-net' is not a name that Python can import"),
    ],
)
def test_a_file_that_cannot_be_a_plugin_is_refused_in_one_line(
    name: str, content: str | None, message: str, tmp_path: Path
):
    if content is not None:
        _ = (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message) as refusal:
        load_plugins([tmp_path / name])
    assert "\n" not in str(refusal.value)


def test_an_error_in_a_plugin_keeps_its_traceback_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "path", list(sys.path))
    file = tmp_path / "plugin_that_fails.py"
    _ = file.write_text("raise ZeroDivisionError('mine')\n")
    with pytest.raises(ZeroDivisionError, match="mine"):
        load_plugins([file])
    assert "plugin_that_fails" not in sys.modules
    assert file.resolve() not in loaded_plugins()
