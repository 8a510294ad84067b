"""Pascal VOC's layout, converted once to a COCO annotation file in the cache.

    ROOT/Annotations/000012.xml ...   ROOT/JPEGImages/000012.jpg ...   ROOT/ImageSets/Main/train.txt ...

A split is named by its list, ROOT/ImageSets/Main/train.txt; several lists together are one split.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from resdet.coco.image_files import check_file_name
from resdet.data.sets.cache import cache_folder
from resdet.errors import UserError
from resdet.files import replace_file

VERSION = 1  # of the conversion: part of the cached file's name
LARGEST_XML = 4 * 2**20  # bytes; VOC's largest has 20,000
CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
KNOWN_SETS = {  # name -> split -> (year, list) below data.root/VOCdevkit
    "voc2007": {"train": (("2007", "trainval"),), "val": (("2007", "test"),)},
    "voc2012": {"train": (("2012", "train"),), "val": (("2012", "val"),)},
    "voc0712": {"train": (("2007", "trainval"), ("2012", "trainval")), "val": (("2007", "test"),)},
    "voc0712plus": {"train": (("2007", "trainval"), ("2007", "test"), ("2012", "trainval"))},
}


def known_split(devkit: Path, name: str, split: str) -> tuple[Path, Path]:
    """The annotation file of a set in KNOWN_SETS, and the folder its file names are relative to."""
    if split not in KNOWN_SETS[name]:
        raise UserError(
            f"data.{split}.name={name}: the objects of VOC 2012's test images are not public, so there is nothing to "
            f"score; set data.{split}.name=voc2012 to follow the training on images it has seen"
        )
    lists = [devkit / f"VOC{year}" / "ImageSets" / "Main" / f"{part}.txt" for year, part in KNOWN_SETS[name][split]]
    for path in lists:
        if not path.exists():
            raise UserError(
                f"{path} of data.{split}.name={name} is missing; "
                "put the files where datasets/README.md says, or set data.root"
            )
    return convert(lists, devkit, classes=CLASSES), devkit


def annotation_file(path: Path, images: Path | None = None) -> Path:
    """`path` itself, or for a VOC split's list (.txt) the COCO file it is converted to.

    File names in it are relative to `images`, ROOT/JPEGImages unless given. Image ids count along the list. The
    classes are all that ROOT/Annotations names, sorted, so that every split has the same.
    """
    if path.suffix != ".txt":
        return path
    return convert([path], images or _root(path) / "JPEGImages")


def convert(lists: Sequence[Path], images: Path, *, classes: Sequence[str] | None = None) -> Path:
    """The COCO file of the images in `lists`, written at first use and again whenever a file has changed.

    Boxes count VOC's last pixel: [xmin - 1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1]; `difficult` is kept.
    Raises UserError, naming the file, for a list or xml file that does not fit.
    """
    sources = [_Source.below(path) for path in lists]
    digest = hashlib.sha256(repr((VERSION, str(images.absolute()), classes)).encode())
    for source in sources:
        digest.update(source.fingerprint(images).encode())
    name = "+".join(f"{source.root.absolute().name}-{source.list.stem}" for source in sources)
    target = cache_folder() / f"voc-{name}-{digest.hexdigest()[:16]}.json"
    if not target.is_file():
        _write(target, _content(sources, images, classes))
    return target


@dataclass(frozen=True)
class _Source:
    """One list and the folders beside it."""

    list: Path
    root: Path

    @classmethod
    def below(cls, path: Path) -> _Source:
        root = _root(path)
        if not path.is_file():
            raise UserError(f"{path}: no such file; name FOLDER/ImageSets/Main/train.txt")
        if not (root / "Annotations").is_dir():
            raise UserError(
                f"{path}: is no split of a VOC data set, for {root / 'Annotations'} is missing; "
                "name FOLDER/ImageSets/Main/train.txt, or a COCO json file"
            )
        return cls(path, root)

    def names(self) -> list[str]:
        """The images in the list."""
        lines = [line.strip() for line in _text(self.list).splitlines()]
        names = [line for line in lines if line]
        if not names:
            raise UserError(f"{self.list}: is empty; name one image a line, without its ending")
        for name in names:
            check_file_name(name, str(self.list))
            if name.split()[-1] in ("-1", "0", "1") and len(name.split()) == 2:
                raise UserError(
                    f"{self.list}: {name!r} says whether an image shows one class; name a list of whole images "
                    "such as train.txt"
                )
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            raise UserError(f"{self.list}: names {repeated[0]!r} twice (such names: {len(repeated)}); once is enough")
        return names

    def xml(self, name: str) -> Path:
        return self.root / "Annotations" / f"{name}.xml"

    def fingerprint(self, images: Path) -> str:
        """Changes with any file that the conversion reads."""
        stats = [f"{self.list.absolute()} {self.list.stat().st_mtime_ns} {_folder(self.root, images).absolute()}"]
        for folder in (self.root / "Annotations", _folder(self.root, images)):
            if folder.is_dir():
                with os.scandir(folder) as entries:
                    files = sorted((entry.name, entry) for entry in entries)
                stats += [f"{name} {_stat(entry) if name.endswith('.xml') else ''}" for name, entry in files]
        return "\n".join(stats)


def _root(path: Path) -> Path:
    return path.absolute().parent.parent.parent


def _stat(entry: os.DirEntry[str]) -> tuple[int, int]:
    stat = entry.stat()
    return stat.st_size, stat.st_mtime_ns


def _folder(root: Path, images: Path) -> Path:
    """Where the image files lie: JPEGImages if that is in `images`, else `images` itself."""
    own = root / "JPEGImages"
    return own if own.absolute().is_relative_to(images.absolute()) else images


def _content(sources: Sequence[_Source], images: Path, classes: Sequence[str] | None) -> dict[str, Any]:
    known = _class_names(sources) if classes is None else classes
    labels = {name: label for label, name in enumerate(known, start=1)}
    records: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for source in sources:
        files = _image_files(source.root, images)
        for name in source.names():
            tree = _read_xml(source.xml(name), f"{source.list} names {name!r}; take it out of the list or add the file")
            image = len(records) + 1
            stem = Path(name).name
            records.append({"id": image, "file_name": files.get(stem, f"{name}.jpg"), **_size(tree, source.xml(name))})
            for number, item in enumerate(tree.findall("object"), start=1):
                where = f"{source.xml(name)}: object {number}"
                label = _label(item, labels, where)
                identity = {"id": len(annotations) + 1, "image_id": image, "category_id": label, "iscrowd": 0}
                annotations.append(identity | _box(item, where) | {"difficult": int(_flag(item, "difficult", where))})
    return {
        "info": {"description": f"converted from {', '.join(str(source.list) for source in sources)}"},
        "images": records,
        "annotations": annotations,
        "categories": [{"id": label, "name": name} for name, label in labels.items()],
    }


def _class_names(sources: Sequence[_Source]) -> list[str]:
    names: set[str] = set()
    for source in sources:
        for path in sorted((source.root / "Annotations").glob("*.xml")):
            objects = enumerate(_read_xml(path, "").findall("object"), start=1)
            names.update(_field(item, "name", f"{path}: object {number}") for number, item in objects)
    if not names:
        raise UserError(f"{sources[0].root / 'Annotations'}: no xml file there has an object; nothing can be learned")
    return sorted(names)


def _image_files(root: Path, images: Path) -> dict[str, str]:
    """File names relative to `images`, by what they are without their ending."""
    folder = _folder(root, images)
    if not folder.is_dir():
        raise UserError(f"{folder}: is no folder of images; put them there, or name their folder as images")
    below = folder.absolute().relative_to(images.absolute())
    return {Path(name).stem: (below / name).as_posix() for name in sorted(os.listdir(folder))}


def _label(item: Element, labels: dict[str, int], where: str) -> int:
    name = _field(item, "name", where)
    if name not in labels:
        raise UserError(f"{where}: class {name!r} is none of VOC's 20; name the list itself as annotations")
    return labels[name]


def _box(item: Element, where: str) -> dict[str, Any]:
    box = item.find("bndbox")
    if box is None:
        raise UserError(f"{where}: has no bndbox; give it one, or remove the object")
    left, top, right, bottom = (_number(box, side, where) for side in ("xmin", "ymin", "xmax", "ymax"))
    if right < left or bottom < top:
        raise UserError(
            f"{where}: bndbox from ({left:g}, {top:g}) to ({right:g}, {bottom:g}) ends before it begins; mend it"
        )
    width, height = right - left + 1, bottom - top + 1
    return {"bbox": [left - 1, top - 1, width, height], "area": width * height}


def _size(tree: Element, path: Path) -> dict[str, int]:
    size = tree.find("size")
    if size is None:
        raise UserError(f"{path}: has no size; give it the image's width and height")
    sides = {side: int(_number(size, side, f"{path}: size")) for side in ("width", "height")}
    if min(sides.values()) < 1:  # some labelling tools write 0
        raise UserError(f"{path}: size: {sides['width']}x{sides['height']} pixels; write those of its image")
    return sides


def _number(parent: Element, name: str, where: str) -> float:
    text = _field(parent, name, where)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where}: {name} is {text[:40]!r}, no number; mend it")
    return value


def _flag(item: Element, name: str, where: str) -> bool:
    """Absent is false, as in annotations that people draw themselves."""
    return item.find(name) is not None and _number(item, name, where) != 0


def _field(parent: Element, name: str, where: str) -> str:
    text = (parent.findtext(name) or "").strip()
    if not text:
        raise UserError(f"{where}: has no {name}; give it one")
    return text


def _read_xml(path: Path, missing: str) -> Element:
    """Elements alone: a document type, and with it every entity, is refused."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {missing}") from None
    if len(data) > LARGEST_XML:
        raise UserError(f"{path}: larger than {LARGEST_XML} bytes; that is no annotation of one image")
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data

    def refuse(*_: Any) -> None:
        raise UserError(f"{path}: declares a document type, which an annotation has no need of; remove it")

    parser.StartDoctypeDeclHandler = refuse
    try:
        _ = parser.Parse(data, True)  # noqa: FBT003  # the data is complete
    except (expat.ExpatError, ValueError) as error:
        raise UserError(f"{path}: not readable as XML ({error}); mend it, or take it out of its list") from None
    tree = builder.close()
    if tree.tag != "annotation":
        raise UserError(f"{path}: begins with <{tree.tag[:40]}>; expected a VOC <annotation>")
    return tree


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name FOLDER/ImageSets/Main/train.txt") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file; name FOLDER/ImageSets/Main/train.txt") from None


def _write(target: Path, content: dict[str, Any]) -> None:
    """Whole or not at all, however many processes write at once."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, json.dumps(content, allow_nan=False).encode())
    except OSError as error:
        raise UserError(
            f"{target.parent}: cannot write the converted annotations ({error.strerror}); "
            "set RESDET_CACHE to a folder with room"
        ) from None
