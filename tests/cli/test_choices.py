"""The format of a folder, and what is held out of it, are chosen by the same keys and options in every command."""

from __future__ import annotations

from pathlib import Path

import pytest

from layout_folders import coco_2017, picture, text, voc_roboflow, yolo_lines
from resdet.cli.main import main
from resdet.config import load_config
from resdet.data.batches.loader import open_split
from resdet.data.sets.opened import scored_content
from resdet.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESDET_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize("override", ["format=yolo", "val_share=0.5"])
def test_a_key_about_folders_without_a_folder_is_an_error(override: str) -> None:
    data = load_config(overrides=["data.train.name=shapes", f"data.{override}"]).data
    with pytest.raises(UserError, match=rf"^data\.{override} is about the folders of data\.path, which is not given"):
        _ = open_split(data, "train")


def test_the_format_of_a_folder_that_may_be_two_is_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "set"
    coco_2017(folder)
    voc_roboflow(folder)
    commands = {
        "check-data": ["check-data", str(folder)],
        "convert-data": ["convert-data", str(folder), "--format", "csv", "--output", str(tmp_path / "out")],
    }
    for name, command in commands.items():
        assert main(command) == 2
        error = capsys.readouterr().err
        assert "may be coco" in error
        assert "check-data, convert-data: --from coco" in error
        for number, format in enumerate(("coco", "voc")):
            if name == "convert-data":
                command[-1] = str(tmp_path / f"out{number}")
            assert main([*command, "--from", format]) == 0
            assert f"read as {format}" in capsys.readouterr().out.replace("\n", " ") or name == "convert-data"


def test_what_is_scored_of_a_folder_is_what_the_run_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text(tmp_path / "data.yaml", "train: images\nnames: [bee, wasp]\n")
    for number in range(40):
        picture(tmp_path / f"images/{number}.jpg")
        text(tmp_path / f"labels/{number}.txt", yolo_lines("a"))
    results = tmp_path / "none.json"
    text(results, "[]")
    for overrides in ([], ["data.val_share=0.5"], ["data.val_share=0.5", "data.val_seed=3"]):
        val = open_split(load_config(overrides=[f"data.path={tmp_path}", *overrides]).data, "val")
        assert (
            scored_content(tmp_path, load_config(overrides=overrides).data).image_ids.tolist() == val.image_ids.tolist()
        )
        assert main(["score", str(tmp_path), str(results), *overrides]) == 0
    _ = capsys.readouterr()
    for wrong, words in (
        ("data.val_share=2", "data.val_share"),
        ("train.steps=3", "does not choose what is scored"),
        ("data.formt=voc", "does not choose what is scored"),
    ):
        assert main(["score", str(tmp_path), str(results), wrong]) == 2
        assert words in capsys.readouterr().err
    file = tmp_path / "a.json"
    text(file, "{}")
    assert main(["score", str(file), str(results), "data.val_share=0.5"]) == 2
    assert "is about a folder" in capsys.readouterr().err
