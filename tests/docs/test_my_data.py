"""docs/my_data.md is walked from the first command to the last, in a folder with a generated data set.

Only numbers are smaller, and the backbone: a reader trains for minutes.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

import resdet
from docs_pages import CONSOLE, ROOT, arguments_of, lines_of
from resdet.cli.main import main

PAGE = (ROOT / "docs/my_data.md").read_text(encoding="utf-8")
SMALLER = {"train.minutes=8": "train.minutes=0.02", "train.steps=150": "train.steps=4"}
NANO = (
    "model.backbone.name=nano model.backbone.weights=null model.backbone.norm=gn model.backbone.frozen_stages=0"
    " model.neck.channels=16 model.mask_head=null"
    " data.augment.short_side=[64] data.augment.test_short_side=64 data.augment.max_side=64"
    " train.checkpoint_every=1000 eval.every=0 data.workers=0 train.device=cpu train.channels_last=false"
)


def smaller(line: str) -> list[str]:
    """The arguments of a command of the page, with small numbers and a small backbone for a training."""
    for given, instead in SMALLER.items():
        line = line.replace(given, instead)
    arguments = arguments_of(line)
    assert arguments is not None, line
    return [*arguments, *(shlex.split(NANO) if arguments[0] == "train" else [])]


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the data set of the page."""
    data = resdet.open_dataset("nano", split="train")
    _ = shutil.copytree(Path(data.annotations).parents[1], tmp_path / "cells")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_walk_of_the_page_works_from_the_first_command_to_the_last(
    reader: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line for block in CONSOLE.findall(PAGE) for line in lines_of(block)]
    assert [line.split()[1] for line in lines] == ["check-data", "new", "train", "train", "train", "predict"]
    for line in lines:
        assert main(smaller(line)) == 0, capsys.readouterr().err
    assert re.search(r"class|images", capsys.readouterr().out)
    for written in ("cells.yaml", "runs/cells/report.html", "runs/cells/drawings/overview.jpg", "found/objects.csv"):
        assert (reader / written).is_file(), written


def test_every_step_has_its_number() -> None:
    assert re.findall(r"^## (\d)\.", PAGE, re.MULTILINE) == list("1234567")
