"""Finds the train and val splits in a folder of a usual layout: a literal table of layouts, one row each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from resdet.errors import UserError
from resdet.files import usable_paths

TRAIN, VAL = ("train",), ("val", "valid", "validation", "test")  # words in the names of files and folders, best first
HEAD = 2**16  # bytes in which the name of an image is looked for


@dataclass(frozen=True)
class Split:
    """An annotation file and the folder of its images, as a config names them."""

    annotations: Path
    images: Path


@dataclass(frozen=True)
class Layout:
    """The two splits of a data set, and the name of its layout."""

    name: str
    train: Split
    val: Split


@usable_paths()
def find_layout(folder: Path) -> Layout:
    """The splits in a folder. Raises UserError if there are none, saying what is missing."""
    if not folder.is_dir():
        raise UserError(f"{folder}: is no folder; give the folder of a data set")
    reasons = []
    for name, find in LAYOUTS.items():
        found = find(folder)
        if isinstance(found, str):
            reasons.append(f"{name}: {found}")
        else:
            return Layout(name, *found)
    raise UserError(f"{folder}: no data set of a known layout ({'; '.join(reasons)}); see datasets/README.md")


def _find_voc(folder: Path) -> tuple[Split, Split] | str:
    lists, images = folder / "ImageSets/Main", folder / "JPEGImages"
    if not lists.is_dir() or not images.is_dir():
        return "no ImageSets/Main beside JPEGImages"
    for train, val in (("train", "val"), ("train", "test"), ("trainval", "test")):
        if (lists / f"{train}.txt").is_file() and (lists / f"{val}.txt").is_file():
            return Split(lists / f"{train}.txt", images), Split(lists / f"{val}.txt", images)
    return f"{lists} has no train.txt with val.txt or test.txt"


def _find_coco(folder: Path) -> tuple[Split, Split] | str:
    files = [
        *sorted(folder.glob("*.json")),
        *sorted(folder.glob("annotations/*.json")),
        *sorted(folder.glob("*/*.json")),
    ]
    files = [file for file in dict.fromkeys(files) if file.is_file()]
    if not files:
        return "no .json file in it, in its subfolders or in annotations/"
    found: list[Split] = []
    for words in (TRAIN, VAL):
        named = [file for word in words for file in files if _says(file, folder, word)]
        named.sort(key=lambda file: "instances" not in file.name)  # before captions and keypoints
        splits = [Split(file, images) for file in named if (images := _images_of(file, folder)) is not None]
        if not splits:
            if not named:
                return f"no .json file with {' or '.join(words)} in its name; split the annotations into train and val"
            return f"{named[0]}: its images are in none of the usual folders beside it"
        found.append(splits[0])
    return found[0], found[1]


def _says(file: Path, folder: Path, word: str) -> bool:
    """Whether the name of a file, or of its own folder below `folder`, has the word."""
    inside = file.relative_to(folder).parts
    name = file.stem.lower() if len(inside) == 1 or inside[0] == "annotations" else f"{inside[0]} {file.stem}".lower()
    return word in name and not (word == "train" and "trainval" in name)


def _images_of(file: Path, folder: Path) -> Path | None:
    """The folder in which the first image that the file names is."""
    with file.open("rb") as opened:
        head = opened.read(HEAD).decode("utf-8", "replace")
    _, mark, rest = head.partition('"file_name"')
    try:
        name, _ = json.JSONDecoder().raw_decode(rest.lstrip(": \t\r\n")) if mark else ("", 0)
    except ValueError:
        return None
    if not isinstance(name, str) or not name or name.startswith("/") or ".." in Path(name).parts:
        return None
    return next((place for place in _places(file, folder) if (place / name).is_file()), None)


def _places(file: Path, folder: Path) -> Iterator[Path]:
    yield from (file.parent, folder, folder / "images")
    for parent in (folder, folder / "images"):
        if parent.is_dir():
            yield from sorted(path for path in parent.iterdir() if path.is_dir() and path.name in file.stem)
            yield from sorted(path for path in parent.iterdir() if path.is_dir() and path.name not in file.stem)


# A row gives the two splits of a folder, or what it lacks.
LAYOUTS: dict[str, Callable[[Path], tuple[Split, Split] | str]] = {"voc": _find_voc, "coco": _find_coco}
