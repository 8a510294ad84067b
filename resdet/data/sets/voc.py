"""Converts Pascal VOC's layout once to a COCO annotation file in the cache.

    ROOT/Annotations/000012.xml ...   ROOT/JPEGImages/000012.jpg ...   ROOT/ImageSets/Main/train.txt ...

A split is named by its list, ROOT/ImageSets/Main/train.txt; several lists together are one split.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from resdet.coco.class_names import VOC_CLASSES
from resdet.data.sets import voc_xml
from resdet.data.sets.cache import converted_file
from resdet.data.sets.voc_files import BY_ENTRY, VocFiles, root_of
from resdet.errors import UserError

VERSION = 3  # of the conversion: part of the cached file's name
KNOWN_SETS = {  # name -> split -> (year, list) below data.root/VOCdevkit
    "voc2007": {"train": (("2007", "trainval"),), "val": (("2007", "test"),)},
    "voc2012": {"train": (("2012", "train"),), "val": (("2012", "val"),)},
    "voc0712": {"train": (("2007", "trainval"), ("2012", "trainval")), "val": (("2007", "test"),)},
    "voc0712plus": {"train": (("2007", "trainval"), ("2007", "test"), ("2012", "trainval"))},
}


def known_split(devkit: Path, name: str, split: str) -> tuple[Path, Path]:
    """The annotation file of a set in KNOWN_SETS, and the folder to which its file names are relative."""
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
    return convert(lists, devkit, classes=VOC_CLASSES), devkit


def annotation_file(path: Path, images: Path | None = None) -> Path:
    """`path` itself, or for a VOC split's list (.txt) the COCO file it is converted to.

    File names in it are relative to `images`, ROOT/JPEGImages unless given. Image ids follow the order of the list. The
    classes are all names in ROOT/Annotations, sorted, so that every split has the same.
    """
    if path.suffix != ".txt":
        return path
    return convert([path], images or root_of(path) / "JPEGImages")


def convert(lists: Sequence[Path], images: Path, *, classes: Sequence[str] | None = None) -> Path:
    """The COCO file of the images in `lists`, written at first use and again whenever a file has changed.

    Boxes include VOC's last pixel: [xmin - 1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1]; `difficult` is kept. Raises
    UserError, naming the file, for a list or xml file that does not fit.
    """
    return converted([VocFiles.below(path, images) for path in lists], images, classes=classes)


def converted(
    sources: Sequence[VocFiles],
    images: Path,
    *,
    classes: Sequence[str] | None = None,
    others: Sequence[VocFiles] = (),
) -> Path:
    """The same for sources. Without `classes`, these are the names in the sources and in the `others`, which are the
    other splits of the data set.
    """
    fingerprint = [
        repr((VERSION, str(images.absolute()), classes)),
        *(source.fingerprint() for source in (*sources, *others)),
    ]
    name = "+".join(f"{source.root.absolute().name}-{source.list.stem}" for source in sources)
    return converted_file(f"voc-{name}", fingerprint, partial(_content, sources, classes, others))


def _content(sources: Sequence[VocFiles], classes: Sequence[str] | None, others: Sequence[VocFiles]) -> dict[str, Any]:
    known = _class_names([*sources, *others]) if classes is None else classes
    labels = {name: label for label, name in enumerate(known, start=1)}
    records: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    taken: dict[str, Path] = {}
    overruled = 0
    for source in sources:
        if not source.folder.is_dir():
            raise UserError(f"{source.folder}: is no folder of images; put them there, or name their folder as images")
        for entry in source.entries:
            path = source.xml(entry)
            tree = voc_xml.read_xml(path)
            file_name, despite_filename = source.image(entry, (tree.findtext("filename") or "").strip())
            overruled += despite_filename
            if file_name in taken:
                raise UserError(f"{path}: its image is {file_name!r}, as is that of {taken[file_name]}; correct one")
            taken[file_name] = path
            image = len(records) + 1
            records.append({"id": image, "file_name": file_name, **voc_xml.size(tree, path)})
            for item, where in voc_xml.objects(tree, path):
                label = _label(item, labels, where)
                identity = {"id": len(annotations) + 1, "image_id": image, "category_id": label, "iscrowd": 0}
                difficult = {"difficult": int(voc_xml.flag(item, "difficult", where))}
                annotations.append(identity | voc_xml.box(item, where) | difficult)
    listed = ", ".join(str(source.list) for source in sources)
    return {
        "info": {
            "description": f"converted from {listed}",
            "source": listed,
            "mended": {BY_ENTRY: {"count": overruled, "examples": []}} if overruled else {},
        },
        "images": records,
        "annotations": annotations,
        "categories": [{"id": label, "name": name} for name, label in labels.items()],
    }


def _class_names(sources: Sequence[VocFiles]) -> list[str]:
    names: set[str] = set()
    for source in sources:
        for path in source.annotations():
            names.update(
                voc_xml.class_name(item, where) for item, where in voc_xml.objects(voc_xml.read_xml(path), path)
            )
    if not names:
        raise UserError(f"{sources[0].xmls}: no xml file there has an object; nothing can be learned")
    return sorted(names)


def _label(item: Element, labels: dict[str, int], where: str) -> int:
    name = voc_xml.class_name(item, where)
    if name not in labels:
        raise UserError(f"{where}: class {name!r} is none of VOC's 20; name the list itself as annotations")
    return labels[name]
