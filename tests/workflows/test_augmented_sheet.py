"""The sheet of augmented samples: what it counts, what it refuses, and its command."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

import resdet
from coloured import write_coloured
from resdet.cli.main import main
from resdet.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coloured(tmp_path_factory.mktemp("coloured"))


def files(folder: Path) -> list[str]:
    return [f"data.train.annotations={folder / 'a.json'}", f"data.train.images={folder}"]


def test_the_sheet_counts_every_object(folder: Path, tmp_path: Path) -> None:
    """Two images of five objects and a crowd region each; nothing is cut by a flip."""
    overrides = [*files(folder), "data.augment.transforms=[horizontal_flip]"]
    sheet = resdet.draw_augmented("nano", overrides=overrides, count=2)
    assert (sheet.objects, sheet.ignored, sheet.dropped) == (10, 2, {})
    picture = cv2.imread(str(sheet.save(sheet.save(tmp_path / "sheet.png"))))  # its own file is replaced
    assert picture is not None
    assert picture.shape == sheet.picture.shape


def test_the_sheet_shows_the_keys_too(folder: Path) -> None:
    sheet = resdet.draw_augmented("nano", overrides=[*files(folder), "data.augment.flip=1.0"], count=1)
    assert sheet.objects == 5


def test_the_command_draws_a_set_of_its_own_and_that_of_a_config(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, of_config = tmp_path / "own.png", tmp_path / "config.png"
    augment = ["--augment", "nano", "data.augment.transforms=lsj", "data.augment.short_side=[64]"]
    assert main(["check-data", str(folder / "a.json"), str(folder), *augment, "--sheet", str(own)]) == 0
    assert "Augmented samples" in capsys.readouterr().out
    assert main(["check-data", "--samples", "1", "--sheet", str(of_config), *augment, *files(folder)]) == 0
    assert cv2.imread(str(own)) is not None
    assert cv2.imread(str(of_config)) is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a folder, or ANNOTATIONS and the folder of its IMAGES, or --augment CONFIG"),
        (["a.json"], "a.json: is an annotation file; give also the folder of its IMAGES"),
        (["--augment", "nanoo"], "nanoo"),
        (["--augment", "nano", "data.augment.transforms=heavi"], r"heavi is not known; did you mean 'heavy'"),
        (["--augment", "nano", "--samples", "0"], "--samples 0: give a number of at least 1"),
        (["--augment", "nano", "--sheet", "/nowhere/sheet.png"], "/nowhere"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check-data", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_photo_is_not_replaced_by_a_sheet(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (folder / "0.png").read_bytes()
    arguments = ["--augment", "nano", *files(folder), "--sheet", str(folder / "0.png")]
    assert main(["check-data", *arguments]) == 2
    assert "resdet did not write it; name another file" in capsys.readouterr().err
    assert (folder / "0.png").read_bytes() == before


def test_a_classification_config_is_refused() -> None:
    with pytest.raises(UserError, match="task=classification: augmented samples are drawn for task=detection"):
        _ = resdet.draw_augmented("cifar/patches")
