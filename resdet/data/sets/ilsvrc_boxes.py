"""Converts the xml files of ILSVRC's localization and detection tracks once to a COCO annotation file in the cache.

    ILSVRC/ImageSets/DET/val.txt       lines of an entry and a number: ILSVRC2012_val_00000001 1
    ILSVRC/Data/DET/val/ENTRY.JPEG     ILSVRC/Annotations/DET/val/ENTRY.xml     ILSVRC/devkit/data/map_det.txt

and the same with CLS-LOC. Classes are named by their synsets, in the order and with the numbers of the devkit.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from resdet.coco.image_files import check_file_name
from resdet.data.sets import voc_xml
from resdet.data.sets.cache import converted_file
from resdet.data.sets.ilsvrc import CLSLOC, DET, lines_of, read_synsets, synsets_file
from resdet.errors import UserError, did_you_mean

VERSION = 1  # of the conversion: part of the cached file's name
KNOWN_SETS = {  # name -> track, split -> list
    "ilsvrc_loc": (CLSLOC, {"train": "train_loc.txt", "val": "val.txt"}),
    "ilsvrc_det": (DET, {"train": "train.txt", "val": "val.txt"}),
}


def known_split(root: Path, name: str, split: str) -> tuple[Path, Path]:
    """The annotation file of a set in KNOWN_SETS below `root`/ILSVRC, and the folder of its images."""
    track, lists = KNOWN_SETS[name]
    images = root / "ILSVRC" / "Data" / track / split
    return annotation_file(root / "ILSVRC" / "ImageSets" / track / lists[split], images), images


def is_list(path: Path) -> bool:
    """Whether a path names a list of ILSVRC's: .../ImageSets/DET/val.txt."""
    return path.suffix == ".txt" and path.parent.name in (CLSLOC, DET) and path.parent.parent.name == "ImageSets"


def annotation_file(path: Path, images: Path | None) -> Path:
    """The COCO file of a list, written at first use and again whenever a file has changed; file names are relative to
    `images`, a folder in Data/TRACK, by default the one called as the list.

    Raises UserError, naming the file, for a list, an xml file or a synset that does not fit.
    """
    root, track = path.absolute().parent.parent.parent, path.parent.name
    folder = root / "Data" / track / path.stem if images is None else images.absolute()
    if not folder.is_relative_to(root / "Data" / track):
        raise UserError(f"{images}: is not in {root / 'Data' / track}, where the images of {path} lie; name its folder")
    entries = _entries(path)
    xmls = [root / "Annotations" / folder.relative_to(root / "Data") / f"{entry}.xml" for entry in entries]
    devkit = root / "devkit" / "data"
    names = synsets_file(devkit, track)
    fingerprint = [repr((VERSION, str(folder), entries, _stat(names))), *(repr(_stat(xml)) for xml in xmls)]
    return converted_file(
        f"ilsvrc-{track}-{path.stem}",
        fingerprint,
        lambda: _content(path, entries, xmls, read_synsets(devkit, track), names),
    )


def _entries(path: Path) -> list[str]:
    """The names in a list. Raises UserError for a list of one class, whose numbers are 1, 0 and -1."""
    entries: list[str] = []
    for row, line in enumerate(lines_of(path), start=1):
        words = line.split()
        if not 1 <= len(words) <= 2:
            raise UserError(f"{path}: line {row} is {line[:60]!r}; expected the name of an image and its number")
        if words[1:] in (["-1"], ["0"]):
            raise UserError(f"{path}: says of each image whether it shows one class ({line[:60]!r}); name train.txt")
        check_file_name(words[0], str(path))
        entries.append(words[0])
    if len(set(entries)) < len(entries):
        twice = next(entry for number, entry in enumerate(entries) if entry in entries[:number])
        raise UserError(f"{path}: names {twice!r} twice; once is enough")
    return entries


def _content(path: Path, entries: list[str], xmls: list[Path], synsets: dict[int, str], names: Path) -> dict[str, Any]:
    numbers = {synset: number for number, synset in sorted(synsets.items())}
    records: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image, (entry, xml) in enumerate(zip(entries, xmls, strict=True), start=1):
        tree = voc_xml.read_xml(xml)
        size = voc_xml.size(tree, xml)
        records.append({"id": image, "file_name": f"{entry}.JPEG", **size})
        for item, where in voc_xml.objects(tree, xml):
            synset = voc_xml.class_name(item, where)
            if synset not in numbers:
                raise UserError(
                    f"{where}: synset {synset[:40]!r} is none of the {len(numbers)} of {names}"
                    f"{did_you_mean(synset, numbers)}; take both from one year"
                )
            identity = {"id": len(annotations) + 1, "image_id": image, "category_id": numbers[synset], "iscrowd": 0}
            annotations.append(identity | _box(item, where, size))
    return {
        "info": {"description": f"converted from {path}", "source": str(path)},
        "images": records,
        "annotations": annotations,
        "categories": [{"id": number, "name": synset} for synset, number in numbers.items()],
    }


def _box(item: Element, where: str, size: dict[str, int]) -> dict[str, Any]:
    """COCO's `bbox` and `area`. ILSVRC counts pixels from 0 and includes the last pixel, but some of its boxes end one
    pixel later, at the width of the image itself.
    """
    left, top, right, bottom = voc_xml.corners(item, where)
    width = max(min(right + 1, size["width"]) - left, 0.0)
    height = max(min(bottom + 1, size["height"]) - top, 0.0)
    return {"bbox": [left, top, width, height], "area": width * height}


def _stat(path: Path) -> tuple[int, int]:
    try:
        stat = os.stat(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; add the file, or take its image out of the list") from None
    return stat.st_size, stat.st_mtime_ns
