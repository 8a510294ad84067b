"""`resdet completion`: the scripts complete commands, options, configs, keys and files, in the shells themselves."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from resdet.cli.main import COMMANDS, main

ASK = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_resdet_without_space 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick.yaml").touch()
    (tmp_path / "runs").mkdir()
    return tmp_path


def script(shell: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["completion", shell]) == 0
    file = folder / f"completion.{shell}"
    _ = file.write_text(capsys.readouterr().out)
    return file


def test_bash_completes_commands_options_configs_keys_names_and_files(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = script("bash", folder, capsys)

    def completions(line: str) -> list[str]:
        done = subprocess.run(
            ["bash", "-c", ASK, "bash", str(file), *line.split(" ")], capture_output=True, text=True, check=True
        )
        return sorted(done.stdout.split())

    assert completions("resdet tr") == ["train"]
    assert set(completions("resdet ")) >= set(COMMANDS)
    assert completions("resdet train --ov") == ["--overfit"]
    assert completions("resdet train quick") == ["quick.yaml", "quickstart"]
    assert completions("resdet train he2015/vgg16_v") == ["he2015/vgg16_voc0712"]
    assert completions("resdet train quickstart model.backbone.na") == ["model.backbone.name="]
    assert completions("resdet train quickstart --output ru") == ["runs"]
    assert completions("resdet configs nan") == ["nano"]
    assert completions("resdet predict maskrcnn_resnet50_fpn_") == ["maskrcnn_resnet50_fpn_v2"]
    assert completions("resdet completion z") == ["zsh"]
    assert completions("resdet export runs --format o") == ["onnx", "openvino"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_get_the_same_names(shell: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = script(shell, folder, capsys)
    text = file.read_text()
    for name in (*COMMANDS, "overfit", "he2015/resnet101_coco", "model.backbone.name=", "maskrcnn_resnet50_fpn_v2"):
        assert name in text
    if shutil.which(shell):
        assert subprocess.run([shell, "-n", str(file)], capture_output=True, check=False).returncode == 0


def test_zsh_completes_every_one_of_several_configs_and_keys(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = script("zsh", folder, capsys).read_text()
    assert re.search(r'"\*:YAML files [^"]*:_resdet_CONFIG_key_value_train_files"', text)
    assert '"(*):' not in text


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
def test_fish_completes_in_fish(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = script("fish", folder, capsys)
    for line, wanted in (("resdet tr", "train"), ("resdet train nano model.backbone.na", "model.backbone.name=")):
        ask = ["fish", "--no-config", "-c", f"source {file}; complete -C '{line}'"]
        done = subprocess.run(ask, capture_output=True, text=True, check=True)
        assert done.stdout.split("\t")[0] == wanted


def test_an_unknown_shell_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        _ = main(["completion", "csh"])
    assert leaving.value.code == 2
    assert "'bash', 'zsh', 'fish'" in capsys.readouterr().err
