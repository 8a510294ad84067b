"""Finds the files of a data set below the folder that a user names: images, splits by their names, paths in lists."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from resdet.coco.image_files import IMAGE_SUFFIXES
from resdet.errors import UserError

SPLITS = {  # the words by which a file or a folder is known as a split
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}


def split_in(name: str) -> str | None:
    """The split that a name contains as a word: "instances_train2017.json" is "train", "default" is none."""
    words = re.findall("[a-z]+", name.lower())
    return next((split for split, names in SPLITS.items() if any(word in names for word in words)), None)


def by_split(paths: Iterable[Path], folder: Path, what: str) -> dict[str, Path]:
    """The file, or the folder, of each split by its name; one alone without a split's name is that of training.

    Raises UserError if two are of the same split.
    """
    found: dict[str, Path] = {}
    unnamed: list[Path] = []
    for path in paths:
        split = split_in(path.name) or split_in(path.parent.name if path.parent != folder else "")
        if split is None:
            unnamed.append(path)
        elif split in found:
            raise UserError(f"{folder}: {what} {found[split].name!r} and {path.name!r} are both {split}; {ONE_OF_THEM}")
        else:
            found[split] = path
    if len(unnamed) > 1 and not found:
        raise UserError(
            f"{folder}: which {what} is for training? {unnamed[0].name!r} and {unnamed[1].name!r} name no split; "
            f"{ONE_OF_THEM}"
        )
    return found or ({"train": unnamed[0]} if unnamed else {})


ONE_OF_THEM = "name one with data.train.annotations and data.train.images, and likewise data.val"


def listed(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder by name, without hidden ones; none if it is not there or cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)
    except (OSError, ValueError):  # ValueError: a name that no file system accepts
        return []


def files_in(folder: Path, *suffixes: str) -> list[Path]:
    """The files directly in a folder with one of the endings (in lower case), by name."""
    return [
        Path(entry.path) for entry in listed(folder) if entry.name.lower().endswith(suffixes) and os.path.isfile(entry)
    ]


def folders_in(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in listed(folder) if os.path.isdir(entry)]


def folders_below(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """The folder and those below it without hidden ones, each with the names of its files, and once even if links form
    a cycle.
    """
    seen: set[str] = set()
    for path, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(path)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if name[0] != ".")
        yield Path(path), files


def images_below(root: Path, folder: str, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[str]:
    """The images in a folder of `root` and its subfolders, relative to `root`; each folder once, even if links form a
    cycle.
    """
    names: list[str] = []
    for path, files in folders_below(root / folder):
        below = path.relative_to(root)
        images = [name for name in files if name[0] != "." and PurePosixPath(name).suffix.lower() in suffixes]
        names += [(below / name).as_posix() for name in sorted(images)]
    return names


class Inside:
    """Refuses links that lead out of a folder; the folders on the way are resolved once."""

    def __init__(self, root: Path) -> None:
        self._root, self._real = root, root.resolve()
        self._parents: dict[str, bool] = {}

    def check(self, name: str) -> None:
        """Raises UserError unless the file, relative to the folder, really lies in it."""
        path = self._root / name
        parent = str(path.parent)
        if parent not in self._parents:
            self._parents[parent] = path.parent.resolve().is_relative_to(self._real)
        if not self._parents[parent] or (path.is_symlink() and not path.resolve().is_relative_to(self._real)):
            raise UserError(f"{path}: is a link that leaves {self._root}; copy the file there")


def below(root: Path, bases: Sequence[str], written: str) -> str | None:
    """The place below `root` that a path in a file means, relative to `root`; None if there is none.

    Written paths are relative to one of the `bases` (folders relative to `root`). A path that is not there, because it
    was written on another machine, or relative to another folder, is looked for by its tail: of /home/me/images/a.jpg
    the tails are home/me/images/a.jpg, me/images/a.jpg and so on, and the first that exists is taken.
    """
    if "\0" in written or "://" in written:
        return None
    text = written.replace("\\", "/")
    if not text.startswith("/"):
        for base in bases:
            place = _normal(f"{base}/{text}")
            if place is not None and os.path.lexists(root / place):
                return place
    parts = [part for part in re.sub(r"^[A-Za-z]:", "", text).split("/") if part not in ("", ".")]
    if ".." in parts:
        parts = parts[len(parts) - parts[::-1].index("..") :]
    for start in range(len(parts)):
        place = "/".join(parts[start:])
        if os.path.lexists(root / place):
            return place
    return None


def _normal(path: str) -> str | None:
    """Without "." and "..", None if it leads out."""
    place = os.path.normpath(path.lstrip("/"))
    return None if place == ".." or place.startswith("../") else place
