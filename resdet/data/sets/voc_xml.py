"""Reads Pascal VOC's xml files: the size of the image and its objects. Other elements are ignored."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from resdet.coco.checks import LARGEST
from resdet.errors import UserError
from resdet.files import read_regular

LARGEST_XML = 4 * 2**20  # bytes; VOC's largest has 20,000


def read_xml(path: Path, missing: str = "") -> Element:
    """The <annotation> of a file. Only elements are accepted: a document type, and so every entity, is an error.

    Raises UserError naming the file; `missing` is the remedy in the message if the file cannot be opened.
    """
    tree = read_tree(path, missing, largest=LARGEST_XML)
    if tree.tag != "annotation":
        raise UserError(f"{path}: begins with <{tree.tag[:40]}>; expected a VOC <annotation>")
    return tree


def read_tree(path: Path, missing: str, *, largest: int) -> Element:
    """The outermost element of an xml file of at most so many bytes; otherwise as `read_xml`."""
    try:
        data = read_regular(path, largest=largest)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {missing}") from None
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
    return builder.close()


def size(tree: Element, path: Path) -> dict[str, int]:
    """The image's `width` and `height` in pixels. Raises UserError if they are missing."""
    element = tree.find("size")
    if element is None:
        raise UserError(f"{path}: has no size; give it the image's width and height")
    sides = {side: int(_number(element, side, f"{path}: size")) for side in ("width", "height")}
    if min(sides.values()) < 1:  # some labelling tools write 0
        raise UserError(f"{path}: size: {sides['width']}x{sides['height']} pixels; write those of its image")
    return sides


def objects(tree: Element, path: Path) -> list[tuple[Element, str]]:
    """The objects of an image, each with its name for a message."""
    return [(item, f"{path}: object {number}") for number, item in enumerate(tree.findall("object"), start=1)]


def class_name(item: Element, where: str) -> str:
    """An object's class. White space around it and line breaks inside it belong to the xml's layout and are removed."""
    return " ".join(_field(item, "name", where).split())


def box(item: Element, where: str) -> dict[str, Any]:
    """COCO's `bbox` and `area` of an object. VOC counts pixels from 1 and includes the last pixel of the object."""
    left, top, right, bottom = corners(item, where)
    width, height = right - left + 1, bottom - top + 1
    return {"bbox": [left - 1, top - 1, width, height], "area": width * height}


def corners(item: Element, where: str) -> tuple[float, float, float, float]:
    """An object's xmin, ymin, xmax and ymax as they are written."""
    element = item.find("bndbox")
    if element is None:
        raise UserError(f"{where}: has no bndbox; give it one, or remove the object")
    left, top, right, bottom = (_number(element, side, where) for side in ("xmin", "ymin", "xmax", "ymax"))
    if right < left or bottom < top:
        raise UserError(
            f"{where}: bndbox from ({left:g}, {top:g}) to ({right:g}, {bottom:g}) ends before it begins; mend it"
        )
    return left, top, right, bottom


def flag(item: Element, name: str, where: str) -> bool:
    """A flag; an absent element is false, because other tools often leave it out."""
    return item.find(name) is not None and _number(item, name, where) != 0


def _number(parent: Element, name: str, where: str) -> float:
    text = _field(parent, name, where)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= LARGEST:  # before any arithmetic: the product of two such sides may be infinite
        raise UserError(f"{where}: {name} is {text[:40]!r}, no number of at most {LARGEST:g}; mend it")
    return value


def _field(parent: Element, name: str, where: str) -> str:
    text = (parent.findtext(name) or "").strip()
    if not text:
        raise UserError(f"{where}: has no {name}; give it one")
    return text
