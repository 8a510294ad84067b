"""Finds the image files of a prediction, and chooses names for their drawings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from resdet.coco.image_files import IMAGE_SUFFIXES
from resdet.errors import UserError

LONGEST_NAME = 200  # bytes; file systems do not permit more than 255


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The files given, and the images in the folders given, each once.

    Folders are listed by name without their subfolders and without hidden files. Raises UserError for a path that
    does not exist and for a folder without images.
    """
    found: list[Path] = []
    for path in paths:
        found += _images_in(path) if path.is_dir() else [_existing(path)]
    return list(dict.fromkeys(found))


def _existing(path: Path) -> Path:
    if not os.path.lexists(path):
        raise UserError(f"{path}: no such file or folder; give images or folders of images")
    return path


def _images_in(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror}); check its permissions") from None
    images = [
        path for path in entries if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "." and not path.is_dir()
    ]
    if not images:
        raise UserError(
            f"{folder}: has no images ({', '.join(IMAGE_SUFFIXES)}); its subfolders are not searched, so give the "
            "folder that holds the files"
        )
    return images


def drawing_names(paths: Sequence[str | Path]) -> list[str]:
    """A file name `<stem>.jpg` for each image; names that are equal, apart from upper and lower case, get a number."""
    taken: set[str] = set()
    names = []
    for path in paths:
        stem = os.fsdecode(os.fsencode(Path(path).stem)[:LONGEST_NAME])
        name, number = f"{stem}.jpg", 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}_{number}.jpg"
        taken.add(name.casefold())
        names.append(name)
    return names
