"""The configs that come with resdet have names, and a path still means its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from resdet.cli.main import main
from resdet.config import load_config
from resdet.config.shipped import config_folder, find_config, shipped_configs, summary
from resdet.errors import UserError

CONFIGS = Path(__file__).parents[2] / "configs"


def test_every_config_has_a_name_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert config_folder() == CONFIGS
    known = shipped_configs()
    assert sorted(known.values()) == sorted(CONFIGS.rglob("*.yaml"))
    assert {"quickstart", "he2015/resnet101_coco"} <= known.keys()
    assert all(len(summary(file)) > 20 for file in known.values())
    assert main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(known)
    assert all(len(line) < 160 for line in lines)


def test_a_config_may_be_printed_to_start_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs", "nano"]) == 0
    assert capsys.readouterr().out == (CONFIGS / "nano.yaml").read_text()
    assert main(["configs", "nan0"]) == 2
    assert "did you mean 'nano'" in capsys.readouterr().err


def test_a_name_is_the_same_config_as_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside a clone the path configs/nano.yaml means it too, unless there is a file of that name."""
    monkeypatch.chdir(tmp_path)
    assert load_config("nano") == load_config(CONFIGS / "nano.yaml") == load_config("configs/nano.yaml")
    assert find_config("he2015/rpn") == find_config("configs/he2015/rpn.yaml") == CONFIGS / "he2015/rpn.yaml"
    (tmp_path / "configs").mkdir()
    _ = (tmp_path / "configs/nano.yaml").write_text("train: {steps: 7}\n")
    assert load_config("configs/nano.yaml").train.steps == 7
    assert load_config("nano").train.steps == 50


def test_a_file_of_ones_own_is_never_mistaken_for_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"nano\.yaml: No such file"):
        _ = load_config("nano.yaml")
    _ = (tmp_path / "mine").write_text("train: {steps: 3}\n")
    assert load_config("mine").train.steps == 3
    (tmp_path / "nano").mkdir()
    assert load_config("nano").train.steps == 50
