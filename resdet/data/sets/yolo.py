"""Converts YOLO's layout: a data.yaml with the classes and the splits, folders `images` and `labels` side by side.

    FOLDER/data.yaml           path: .   train: images/train   val: images/val   names: [bee, wasp]
    FOLDER/images/train/a.jpg  FOLDER/labels/train/a.txt

Roboflow's exports (train/images, train/labels), lists of images (train: train.txt) and Darknet's older form (obj.data,
obj.names, labels beside the images) are read as well. An image without a label file has no objects. Every path lies
below FOLDER (`folders.below`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from resdet.coco.image_files import IMAGE_SUFFIXES
from resdet.config.plain_yaml import LARGEST_FILE, parse
from resdet.data.sets.cache import converted_file, state
from resdet.data.sets.content import Content, Faults
from resdet.data.sets.folders import Inside, below, files_in, images_below
from resdet.data.sets.yolo_labels import REMEDY, LabelReader
from resdet.errors import UserError
from resdet.files import read_text
from resdet.text import shortened

VERSION = 1  # of the conversion: part of the cached file's name
KEYS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
LOOKS_FOR = "data.yaml with names, train and val (or obj.data with obj.names)"
Files = tuple[Path, Path]


@dataclass(frozen=True)
class Description:
    """What a data.yaml says: the classes by their number, and for each split the paths as they are written."""

    file: Path
    names: Mapping[int, str]
    splits: Mapping[str, list[str]]
    base: str  # what `path` says
    keypoints: int


def description_file(place: Path) -> Path | None:
    """The data.yaml of a folder, or the file itself; None if there is none."""
    if place.is_file():
        return place if place.suffix in (".yaml", ".yml", ".data") else None
    described = [path for path in files_in(place, ".yaml", ".yml") if _has_names(path)]
    if len(described) > 1:
        plain = [path for path in described if path.stem in ("data", "dataset")]
        if len(plain) != 1:
            raise UserError(
                f"{place}: {described[0].name!r} and {described[1].name!r} both describe a data set; name one of them"
            )
        described = plain
    return described[0] if described else next(iter(files_in(place, "obj.data")), None)


def recognizes(place: Path) -> bool:
    return description_file(place) is not None


def splits(place: Path) -> tuple[str, ...]:
    """The splits that the data set has."""
    return tuple(describe(place).splits)


def read(place: Path, split: str) -> Files:
    """The COCO file in the cache, and the folder that its file names are relative to."""
    described = describe(place)
    root = described.file.absolute().parent
    images = _images(described, root, split)
    inside = Inside(root)
    labels = {name: label for name in images if (label := _label_file(root, name, inside))}
    if not labels:
        raise UserError(
            f"{described.file}: none of the {len(images)} images of {split} has a label file (first: "
            f"{_label_names(images[0])[0]!r}); put the labels there"
        )
    files = [described.file, *(root / name for name in images), *(root / label for label in labels.values())]
    fingerprint = [f"yolo {VERSION} {split}", *map(state, files)]

    def convert() -> dict[str, Any]:
        content = Content(f"{described.file} ({split})", described.names)
        reader = LabelReader(content, described.names, described.keypoints, Faults())
        for name in images:
            if (size := content.size_of(root, name)) is None:
                continue
            image = content.image(name, *size)
            if name in labels:
                reader.read(root / labels[name], image, *size)
        reader.faults.check(REMEDY)
        return content.as_coco()

    return converted_file(f"yolo-{root.name}-{split}", fingerprint, convert), root


def describe(place: Path) -> Description:
    """What the data.yaml of a folder says. Raises UserError for one of another form."""
    file = description_file(place)
    if file is None:
        raise UserError(f"{place}: has no {LOOKS_FOR}")
    content = _darknet(file) if file.suffix == ".data" else _yaml(file)
    splits = {split: _paths(file, content, keys) for split, keys in KEYS.items()}
    return Description(
        file,
        _names(file, content),
        {split: paths for split, paths in splits.items() if paths},
        str(content.get("path") or "."),
        _keypoints(file, content),
    )


def _yaml(file: Path) -> dict[str, Any]:
    content = parse(read_text(file, "give a data.yaml", largest=LARGEST_FILE), str(file))
    if not isinstance(content, dict):
        raise UserError(f"{file}: a {type(content).__name__}; expected keys such as names, train and val")
    return content


def _has_names(file: Path) -> bool:
    """Whether a YAML file describes a data set, and is not a config or something else. A data.yaml always does: its
    faults are worth a message.
    """
    if file.stem in ("data", "dataset"):
        return True
    try:
        return not {"names", "nc"}.isdisjoint(_yaml(file))
    except UserError:
        return False


def _darknet(file: Path) -> dict[str, Any]:
    """obj.data has lines `train = data/train.txt`; obj.names has a class a line."""
    rows = [line.partition("=") for line in read_text(file, "give Darknet's obj.data").splitlines() if "=" in line]
    content = {key.strip(): value.strip() for key, _, value in rows}
    names = file.parent / (below(file.absolute().parent, ["."], content.get("names", "obj.names")) or "obj.names")
    lines = read_text(names, "give the classes, one a line").rstrip().splitlines()
    return {key: content[key] for keys in KEYS.values() for key in keys if content.get(key)} | {"names": lines}


def _names(file: Path, content: Mapping[str, Any]) -> dict[int, str]:
    names, count = content.get("names"), content.get("nc")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if names is None and isinstance(count, int) and 0 < count <= 100_000:
        names = {label: f"class {label}" for label in range(count)}
    if not isinstance(names, dict) or not names or not all(str(key).isdecimal() for key in names):
        raise UserError(
            f"{file}: names is {shortened(str(names), 60)!r}; list the classes, or write {{0: bee, 1: wasp}}"
        )
    if isinstance(count, int) and count != len(names):
        raise UserError(f"{file}: nc is {count}, and names has {len(names)} classes; correct one of them")
    if wrong := [name for name in names.values() if isinstance(name, dict | list | None)]:
        raise UserError(f"{file}: a class is called {shortened(str(wrong[0]), 60)}; write its name")
    return {int(label): str(name) for label, name in sorted(names.items(), key=lambda item: int(item[0]))}


def _paths(file: Path, content: Mapping[str, Any], keys: tuple[str, ...]) -> list[str]:
    value = next((content[key] for key in keys if content.get(key)), None)
    values = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(path, str) and path for path in values):
        raise UserError(f"{file}: {keys[0]} is {shortened(str(value), 60)!r}; name a folder or a list of images")
    return values


def _keypoints(file: Path, content: Mapping[str, Any]) -> int:
    shape = content.get("kpt_shape")
    if shape is None:
        return 0
    if not isinstance(shape, list) or len(shape) != 2 or not all(isinstance(n, int) and 0 < n < 10_000 for n in shape):
        raise UserError(f"{file}: kpt_shape is {shortened(str(shape), 60)!r}; two numbers, [points, 2 or 3]")
    return shape[0] * shape[1]


def _images(described: Description, root: Path, split: str) -> list[str]:
    """The images of a split, relative to the root, each once."""
    names: list[str] = []
    for written in described.splits.get(split, ()):
        place = below(root, _bases(described, root), written)
        if place is None:
            raise UserError(
                f"{described.file}: {split}: {written[:200]!r} is not there in {root}; correct it (data stay below the "
                "folder of this file, and a path is relative to it or to what path says)"
            )
        names += _listed(root, place) if place.endswith(".txt") else images_below(root, place)
    unique = list(dict.fromkeys(names))
    if not unique:
        raise UserError(f"{described.file}: {split} has no image ({', '.join(IMAGE_SUFFIXES)}); correct its path")
    return unique


def _bases(described: Description, root: Path) -> list[str]:
    """The folders that the paths may be relative to: what `path` says, if that lies below the root, and the root."""
    path = Path(described.base)
    own = path if path.is_absolute() else root / path
    inside = own.is_relative_to(root) and ".." not in path.parts
    return [own.relative_to(root).as_posix(), "."] if inside else ["."]


def _listed(root: Path, place: str) -> list[str]:
    """The images in a list, a path a line."""
    file = root / place
    names: list[str] = []
    for row, line in enumerate(read_text(file, "a list has the path of an image a line").splitlines(), start=1):
        if not line.strip():
            continue
        name = below(root, [PurePosixPath(place).parent.as_posix(), "."], line.strip())
        if name is None:
            raise UserError(
                f"{file}: line {row}: {line.strip()[:200]!r} is not there in {root}; correct the path, or take it out"
            )
        names.append(name)
    return names


def _label_names(image: str) -> list[str]:
    """The places of an image's labels: `labels` for the last `images` in its path, else beside the image."""
    path = PurePosixPath(image).with_suffix(".txt")
    parts = list(path.parts)
    folders = [at for at, part in enumerate(parts[:-1]) if part == "images"]
    if not folders:
        return [path.as_posix()]
    parts[folders[-1]] = "labels"
    return ["/".join(parts), path.as_posix()]


def _label_file(root: Path, image: str, inside: Inside) -> str | None:
    label = next((name for name in _label_names(image) if (root / name).is_file()), None)
    if label is not None:
        inside.check(label)
    return label
