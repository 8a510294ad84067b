"""Which files of a folder are the train and the val split."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from resdet.data.sets.layouts import find_layout
from resdet.errors import UserError


def write(folder: Path, *files: str) -> None:
    """Files of these names; an annotation file names the image a.jpg."""
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _ = path.write_text(json.dumps({"images": [{"id": 1, "file_name": "a.jpg"}]}) if name.endswith("json") else "")


COCO = {
    "coco's own": [
        "annotations/instances_train2017.json", "annotations/instances_val2017.json",
        "annotations/captions_train2017.json", "train2017/a.jpg", "val2017/a.jpg",
    ],
    "images in folders of the splits": ["train.json", "val.json", "train/a.jpg", "val/a.jpg"],
    "images below images": [
        "annotations/train.json", "annotations/test.json", "images/train/a.jpg", "images/test/a.jpg",
    ],
    "a file in each split": ["train/_annotations.json", "train/a.jpg", "valid/_annotations.json", "valid/a.jpg"],
    "one folder of images": ["labels_train.json", "labels_val.json", "images/a.jpg"],
}  # fmt: skip


@pytest.mark.parametrize("name", COCO)
def test_usual_places_of_coco_files_are_found(name: str, tmp_path: Path) -> None:
    write(tmp_path, *COCO[name])
    found = find_layout(tmp_path)
    assert found.name == "coco"
    for split, words in ((found.train, ("train",)), (found.val, ("val", "test"))):
        place = split.annotations.relative_to(tmp_path).as_posix()
        assert any(word in place for word in words)
        assert "captions" not in place
        assert (split.images / "a.jpg").is_file()
        if len(list(tmp_path.rglob("a.jpg"))) == 2:
            assert any(word in split.images.name for word in words)


def test_voc_s_lists_are_found_before_converted_files(tmp_path: Path) -> None:
    write(
        tmp_path, "ImageSets/Main/trainval.txt", "ImageSets/Main/test.txt", "JPEGImages/a.jpg", "train.json", "val.json"
    )
    found = find_layout(tmp_path)
    assert (found.name, found.train.annotations.name, found.val.annotations.name) == ("voc", "trainval.txt", "test.txt")
    assert found.train.images == tmp_path / "JPEGImages"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a.jpg"], r"no \.json file"),
        (["train.json", "a.jpg"], "no .json file with val or valid or validation or test in its name"),
        (["train.json", "val.json"], "its images are in none of the usual folders"),
        (["ImageSets/Main/all.txt", "JPEGImages/a.jpg"], "has no train.txt"),
    ],
)
def test_what_is_missing_is_said(files: list[str], message: str, tmp_path: Path) -> None:
    write(tmp_path, *files)
    with pytest.raises(UserError, match=message) as raised:
        _ = find_layout(tmp_path)
    assert str(tmp_path) in str(raised.value)


def test_a_name_that_leaves_the_folder_is_not_followed(tmp_path: Path) -> None:
    write(tmp_path, "data/train.json", "data/val.json", "a.jpg")
    for name in ("train", "val"):
        _ = (tmp_path / f"data/{name}.json").write_text('{"images": [{"file_name": "../a.jpg"}]}')
    with pytest.raises(UserError, match="in none of the usual folders"):
        _ = find_layout(tmp_path / "data")
