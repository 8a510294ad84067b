"""No command replaces a file of somebody else, and none works before it says so."""

from pathlib import Path

import pytest

from resdet.cli.main import main

NANO = "configs/nano.yaml"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("notes.json", ["score", "absent.json", "absent.json", "--json", "{file}"]),
        ("notes.json", ["benchmark", NANO, "--json", "{file}"]),
        ("probe.json", ["probe", NANO, "--output", "{folder}"]),
        ("notes.png", ["probe", NANO, "--output", "{folder}/new", "--figure", "{file}"]),
        ("eval.json", ["evaluate", "absent", "--output", "{folder}"]),
        ("compare.json", ["compare", NANO, "--backbones", "nano", "--output", "{folder}", "train.steps=1"]),
    ],
)
def test_a_file_of_somebody_else_is_named_and_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, arguments: list[str]
):
    file = tmp_path / name
    _ = file.write_text("my notes")
    assert main([part.format(file=file, folder=tmp_path) for part in arguments]) == 2
    assert f"{name}: exists, and resdet did not write it" in capsys.readouterr().err
    assert file.read_text() == "my notes"
    assert [path.name for path in tmp_path.iterdir()] == [name]
