"""What may be predicted: paths, folders, patterns, images in memory, lists and iterators of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from resdet.errors import UserError
from resdet.predict.predictor import Predictor
from resdet.predict.sources import Reading


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png", "below/c.png", "[d].png"):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(folder / name)
    _ = (folder / "notes.txt").write_text("no image")
    return folder


def test_every_way_to_give_one_image_gives_one_prediction(predictor: Predictor, photos: Path) -> None:
    path = photos / "a.png"
    with Image.open(path) as opened:
        array = np.asarray(opened)
        tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
        ways = [str(path), path, opened, array, tensor, array[:, :, ::-1][:, :, ::-1], array / 255, tensor / 255]
        bgr = predictor(np.ascontiguousarray(array[:, :, ::-1]), channels="bgr")
        for found in [*map(predictor, ways), bgr]:
            np.testing.assert_allclose(found.scores, predictor(path).scores, atol=1e-6)
            np.testing.assert_allclose(found.boxes, predictor(path).boxes, atol=1e-4)


def test_a_name_that_looks_like_a_pattern_is_a_file_if_there_is_one(predictor: Predictor, photos: Path) -> None:
    assert predictor(photos / "[d].png").path == photos / "[d].png"


def names(predictions: list[Any]) -> list[str]:
    return [found.path.name if found.path else found.source.name for found in predictions]


def test_folders_patterns_and_lists_give_lists(predictor: Predictor, photos: Path) -> None:
    assert names(predictor(photos)) == ["[d].png", "a.png", "b.png"]
    assert names(predictor(photos, recursive=True)) == ["[d].png", "a.png", "b.png", "c.png"]
    assert names(predictor(str(photos / "?.png"))) == ["a.png", "b.png"]
    assert names(predictor(str(photos / "**/*"))) == ["[d].png", "a.png", "b.png", "c.png"]
    array = np.zeros((20, 20, 3), np.uint8)
    mixed = predictor([photos / "a.png", array, photos, str(photos / "b.p*"), photos / "a.png"])
    assert names(mixed) == ["a.png", "image 1 of the list", "[d].png", "a.png", "b.png", "b.png", "a.png"]
    assert names(predictor([photos / "a.png"])) == ["a.png"]
    assert names(predictor(iter((array, array)))) == ["image 0 of the list", "image 1 of the list"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "a value of type NoneType is no image; give a path, a PIL image"),
        (3, "a value of type int is no image"),
        (b"\xff\xd8", "a value of type bytes is no image"),
        ({"image": 1}, "a value of type dict is no image"),
        ([None], "image 0 of the list is of type NoneType; give a path"),
        ([[[0, 0, 0]]], "image 0 of the list is of type list; give"),
        ("absent.png", "absent.png: no such file or folder"),
        ("ftp://example.org/a.jpg", "is an address of a kind that is not read"),
        ("*.nothing", r"\*.nothing: matches no images"),
        (["absent.png"], "absent.png: no such file"),
    ],
)
def test_what_is_no_image_is_one_line(
    predictor: Predictor, given: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as refusal:
        _ = predictor(given)
    assert "\n" not in str(refusal.value)


def test_a_bad_image_of_a_list_is_named_by_its_place(predictor: Predictor) -> None:
    with pytest.raises(UserError, match=r"image 1 of the list \(an array of shape \(3, 5, 5\)"):
        _ = predictor([np.zeros((5, 5, 3), np.uint8), np.zeros((3, 5, 5), np.uint8)])


def test_an_iterator_is_read_one_by_one_and_a_list_before_the_first_prediction() -> None:
    taken: list[int] = []

    def images() -> Any:
        for number in range(3):
            taken.append(number)
            yield np.zeros((2, 2, 3), np.uint8)

    sources = Reading().sources(images())
    assert taken == []
    _ = next(sources)
    assert taken == [0]
    with pytest.raises(UserError, match=r"absent\.png"):
        _ = Reading().sources([np.zeros((2, 2, 3), np.uint8), "absent.png"])
