"""Finds the COCO files of a folder, and the images that belong to each.

FOLDER/annotations/instances_train2017.json   FOLDER/train2017 (or images/train2017, images/train, images, ...)
FOLDER/train/_annotations.coco.json           FOLDER/train                        Roboflow's exports
FOLDER/annotations/instances_default.json     FOLDER/images/default (or images)   CVAT's exports
"""

from __future__ import annotations

import os
import re
from itertools import islice
from pathlib import Path

import msgspec

from resdet.data.sets.folders import by_split, files_in, folders_in, split_in
from resdet.errors import UserError
from resdet.files import opened_regular
from resdet.text import first_few

LOOKS_FOR = "annotations/*.json, or _annotations.coco.json in the folder or in train, valid and test"
OTHER_TASKS = ("captions_", "person_keypoints_", "image_info_", "stuff_", "panoptic_", "lvis_v1_image_info_")
BESIDE = "_annotations.coco.json"
TRIED = 50  # images of a file that are looked for
BEGINNING, LONGEST = 2**20, 4096  # bytes that are read at a time, and of a name
_NAME = re.compile(rb'"(file_name|coco_url)"\s*:\s*("(?:[^"\\]|\\.)*")')


def recognizes(place: Path) -> bool:
    return place.is_dir() and bool(_files(place))


def splits(place: Path) -> tuple[str, ...]:
    """The splits that the folder has."""
    return tuple(by_split(_files(place), place, "annotation file"))


def read(place: Path, split: str) -> tuple[Path, Path]:
    """The annotation file of a split, and the folder in which its images are found.

    Raises UserError that lists the folders in which they were looked for.
    """
    file = by_split(_files(place), place, "annotation file")[split]
    return file, _images_folder(place, file, split, _first_names(file))


def _first_names(file: Path) -> list[str]:
    """The names of some images, without parsing the file; of LVIS's, from their addresses."""
    names: list[str] = []
    addresses: list[str] = []
    rest = b""
    try:
        with opened_regular(file) as opened:
            while len(names) < TRIED and len(addresses) < 2 * TRIED and (block := opened.read(BEGINNING)):
                rest += block
                end = 0
                for match in _NAME.finditer(rest):
                    (names if match[1] == b"file_name" else addresses).append(_text(match))
                    end = match.end()
                rest = rest[max(end, len(rest) - LONGEST) :]
    except (OSError, UserError):
        return []
    return [name for name in names if name][:TRIED] or ["/".join(url.split("/")[-2:]) for url in addresses if url]


def _text(match: re.Match[bytes]) -> str:
    try:
        return msgspec.json.decode(match[2], type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


def _files(place: Path) -> list[Path]:
    """The annotation files: beside their images, else those in `annotations`, of which instances_... go first."""
    beside = [file for folder in (place, *folders_in(place)) for file in files_in(folder, BESIDE)]
    if beside:
        return beside
    files = [file for file in files_in(place / "annotations", ".json") if not file.name.startswith(OTHER_TASKS)]
    return [file for file in files if file.name.startswith("instances_")] or files or _alone(place)


def _alone(place: Path) -> list[Path]:
    """COCO files directly in the folder: their names say so, or their beginning has one of COCO's lists."""
    return [file for file in files_in(place, ".json") if _begins_like_coco(file)]


def _begins_like_coco(file: Path) -> bool:
    try:
        with opened_regular(file) as opened:
            beginning = opened.read(65536)
    except (OSError, UserError):
        return False
    return bool(re.search(rb'^\s*\{.*"(images|annotations|categories)"\s*:\s*\[', beginning, re.DOTALL))


def _images_folder(place: Path, file: Path, split: str, names: list[str]) -> Path:
    own = re.sub(r"^(instances|lvis_v1|annotations?)_?", "", file.stem)  # train2017 of instances_train2017
    named = [folder for folder in folders_in(place) if split_in(folder.name) == split]
    named += [folder for folder in folders_in(place / "images") if split_in(folder.name) == split]
    tried = [
        *([file.parent] if file.name == BESIDE else []),
        *((place / own, place / "images" / own) if own else ()),
        *named,
        *(place / name for name in ("images", "JPEGImages", "train2017", "data")),
        place,
        file.parent,
    ]
    counts = [sum(os.path.isfile(folder / name) for name in names if "\0" not in name) for folder in tried]
    if not max(counts):
        folders = [folder.relative_to(place).as_posix() for folder in dict.fromkeys(tried) if folder.is_dir()]
        raise UserError(
            f"{file}: its images (first: {next(islice(names, 1), '')[:200]!r}) are in none of {first_few(folders, 8)} "
            f"of {place}; put them there, or name both with data.{split}.annotations and data.{split}.images"
        )
    return tried[counts.index(max(counts))]
