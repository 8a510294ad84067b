"""Finds the image files of a prediction, and chooses names for their drawings."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from resdet.coco.image_files import IMAGE_SUFFIXES
from resdet.errors import UserError
from resdet.files import usable_paths
from resdet.predict.addresses import is_address
from resdet.predict.drawn_video import SUFFIX
from resdet.predict.video import VIDEO_SUFFIXES, Camera, Clip, Video, is_video

LONGEST_NAME = 200  # bytes; file systems do not permit more than 255


def find_images(paths: Sequence[str | Path], *, recursive: bool = False) -> list[Path | str]:
    """The files given, and the images in the folders given and among the matches of patterns, each once.

    An address stays the text that it is.
    """
    found: dict[Path | str, None] = {}
    for given in paths:
        one = isinstance(given, str) and is_address(given)
        found.update(dict.fromkeys([given] if one else images_at(given, recursive=recursive)))
    return list(found)


@usable_paths()
def images_at(given: str | Path, *, recursive: bool = False) -> list[Path]:
    """The images that a path refers to: a file, the images in a folder, or the images and videos that match a pattern
    (`*`, `?`, `[]`).

    Folders are listed by name, without hidden files; their subfolders are left out unless `recursive` is given. In a
    pattern `**` stands for any number of folders. Raises UserError for a path that does not exist, and for a folder or
    a pattern without images.
    """
    path = Path(given)
    if path.is_dir():
        return _images_in(path, recursive=recursive)
    if os.path.lexists(path):
        return [path]
    if "://" in str(given):
        raise UserError(f"{given}: is an address of a kind that is not read; give an https address or a path")
    if glob.has_magic(str(given)):
        return _matches(str(given))
    raise UserError(f"{given}: no such file or folder; give images or folders of images")


@usable_paths()
def is_one_file(given: str | Path) -> bool:
    """Whether a path refers to a single file, and not to a folder or a pattern."""
    return is_address(given) or (
        not Path(given).is_dir() and (os.path.lexists(given) or not glob.has_magic(str(given)))
    )


def is_image(path: Path) -> bool:
    """Whether a name is that of an image that is not hidden, and no folder."""
    return path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "." and not path.is_dir()


def _matches(pattern: str) -> list[Path]:
    paths = map(Path, sorted(glob.glob(pattern, recursive=True)))
    images = [path for path in paths if is_image(path) or (is_video(path) and path.is_file())]
    if not images:
        suffixes = ", ".join((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))
        raise UserError(f"{pattern}: matches no images or videos ({suffixes}); correct the pattern")
    return images


def _images_in(folder: Path, *, recursive: bool) -> list[Path]:
    try:
        entries = sorted(_files_below(folder) if recursive else folder.iterdir())
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: cannot be listed ({error.strerror}); check its permissions"
        ) from None
    images = [path for path in entries if is_image(path)]
    if not images:
        below = "" if recursive else "; its subfolders are not searched unless you ask for it (--recursive)"
        if any(map(is_video, entries)):
            below = f"; its videos are meant by a pattern, such as '{folder}/*{next(filter(is_video, entries)).suffix}'"
        raise UserError(f"{folder}: has no images ({', '.join(IMAGE_SUFFIXES)}){below}")
    return images


def _files_below(folder: Path) -> Iterator[Path]:
    """The files in a folder and its subfolders, without those in hidden folders; links to folders are not followed."""

    def refuse(error: OSError) -> None:
        raise error

    for path, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(path) / name for name in names)


def drawing_names(given: Sequence[str | Path | Clip]) -> list[str]:
    """A file name `<stem>.jpg` for each image, `<stem>.webm` for each video and camera; stems that are equal, but for
    upper and lower case, get a number.
    """
    taken: set[str] = set()
    names = []
    for one in given:
        path = one.path if isinstance(one, Video) else f"camera_{one.number}" if isinstance(one, Camera) else one
        stem = os.fsdecode(os.fsencode(Path(path).stem)[:LONGEST_NAME])
        name, number = stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name.casefold())
        names.append(f"{name}{SUFFIX if isinstance(one, Clip) else '.jpg'}")
    return names
