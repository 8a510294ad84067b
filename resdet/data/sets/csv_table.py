"""Converts tables of boxes: a csv file with a header, a line an object.

    image,xmin,ymin,xmax,ymax,label          pixels of the image
    filename,width,height,class,xmin,...     Roboflow's and TensorFlow's; width and height are the image's
    path,x1,y1,x2,y2,class_name              keras-retinanet's, with a header
    ImageID,LabelName,XMin,XMax,YMin,YMax    Open Images': fractions of the image, names without an ending

Columns are found by their names, in any order. A line without box and label is an image without objects.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from resdet.coco.checks import LARGEST
from resdet.coco.image_files import check_file_name
from resdet.data.sets.cache import converted_file, state
from resdet.data.sets.content import Content, Faults, number
from resdet.data.sets.folders import by_split, files_in, folders_in, images_below
from resdet.errors import UserError
from resdet.files import read_text
from resdet.text import shortened

VERSION = 1  # of the conversion: part of the cached file's name
LOOKS_FOR = "*.csv with a header, in the folder or in train, valid and test"
COLUMNS = {  # a meaning, and the names of its column in lower case without blanks, lines and underscores
    "image": ("image", "imageid", "filename", "file", "path", "imagename", "imagepath", "filepath", "img"),
    "label": ("label", "class", "classname", "labelname", "category", "name", "categoryname"),
    "left": ("xmin", "x1", "left", "bboxxmin"),
    "top": ("ymin", "y1", "top", "bboxymin"),
    "right": ("xmax", "x2", "right", "bboxxmax"),
    "bottom": ("ymax", "y2", "bottom", "bboxymax"),
}
OPTIONAL = {
    "width": ("width", "imagewidth", "imgwidth"),
    "height": ("height", "imageheight", "imgheight"),
    "crowd": ("isgroupof", "iscrowd"),
    "difficult": ("difficult", "isdifficult"),
}
BOX = ("left", "top", "right", "bottom")
REMEDY = "a line is an object: image,xmin,ymin,xmax,ymax,label"
csv.field_size_limit(2**20)


def recognizes(place: Path) -> bool:
    if place.is_file():
        return place.suffix.lower() == ".csv"
    return bool(_files(place))


def splits(place: Path) -> tuple[str, ...]:
    """The splits that the folder has."""
    return tuple(_by_split(place))


def read(place: Path, split: str) -> tuple[Path, Path]:
    """The COCO file in the cache, and the folder that its file names are relative to. Every split has the classes of
    all tables.
    """
    tables = _by_split(place)
    file, root = tables[split], place if place.is_dir() else place.absolute().parent
    return annotation_file([file, *tables.values()], root), root


def annotation_file(files: Sequence[Path], images: Path) -> Path:
    """The COCO file of a table, the first one; the others only add to its classes."""
    every = images_below(images, ".")
    places = _Places(images.absolute(), files[0], every)
    fingerprint = [
        f"csv {VERSION}",
        str(images.absolute()),
        *map(state, files),
        *(state(images / name) for name in every),
    ]
    name = f"csv-{files[0].absolute().parent.name}-{files[0].stem}"
    return converted_file(name, fingerprint, partial(_convert, list(dict.fromkeys(files)), places))


def _files(place: Path) -> list[Path]:
    """The tables of boxes; other csv files, such as the figures of a training, are none."""
    files = files_in(place, ".csv") or [file for folder in folders_in(place) for file in files_in(folder, ".csv")]
    return [file for file in files if _begins_like_boxes(file)]


def _begins_like_boxes(file: Path) -> bool:
    """Whether the first line names half of the columns, or has four numbers where the header should be."""
    try:
        with open(file, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as opened:
            line = opened.readline(65536).decode("utf-8-sig", errors="replace")
    except OSError:
        return False
    cells = [cell.strip().strip('"') for cell in line.split(_delimiter(line))]
    named = sum(not {_plain(cell) for cell in cells}.isdisjoint(names) for names in COLUMNS.values())
    return named >= 3 or sum(number(cell, lambda _: True) is not None for cell in cells) >= 4


def _by_split(place: Path) -> dict[str, Path]:
    return {"train": place} if place.is_file() else by_split(_files(place), place, "table")


@dataclass(frozen=True)
class _Row:
    """A line of a table: its number, its image and label ("" without an object), and its other cells by meaning."""

    line: int
    image: str
    label: str
    cells: Mapping[str, str]


@dataclass(frozen=True)
class _Table:
    file: Path
    normalized: bool  # Open Images: fractions of the image, names without an ending
    rows: list[_Row]


def _convert(files: list[Path], places: _Places) -> dict[str, Any]:
    tables = [_table(file) for file in files]
    labels = sorted({row.label for table in tables for row in table.rows if row.label})
    if not labels:
        raise UserError(f"{files[0]}: no line has a label; {REMEDY}")
    ids = {label: number for number, label in enumerate(labels, start=1)}
    table, faults = tables[0], Faults()
    content = Content(str(table.file), {number: label for label, number in ids.items()})
    images: dict[str, tuple[int, int, int] | None] = {}
    for row in table.rows:
        name = places.of(row, table)
        if name not in images:
            size = _size(row, content, places, name)
            images[name] = None if size is None else (content.image(name, *size), *size)
        known = images[name]
        if known is None or not row.label:
            continue
        _add(content, row, known, ids[row.label], table, faults)
    faults.check(REMEDY)
    return content.as_coco()


def _add(content: Content, row: _Row, known: tuple[int, int, int], label: int, table: _Table, faults: Faults) -> None:
    image, height, width = known
    corners = [number(row.cells[side], lambda value: abs(value) <= LARGEST) for side in BOX]
    where = f"{table.file}: line {row.line}"
    if None in corners:
        side = BOX[corners.index(None)]
        faults.add(f"{where}: {shortened(row.cells[side], 40)!r} is no number of pixels")
        return
    left, top, right, bottom = (corner for corner in corners if corner is not None)
    if table.normalized:
        if max(left, top, right, bottom) > 1.01:
            faults.add(f"{where}: {max(left, top, right, bottom):g} is no fraction of the image")
            return
        left, top, right, bottom = left * width, top * height, right * width, bottom * height
    if right < left or bottom < top:
        faults.add(f"{where}: the box from ({left:g}, {top:g}) to ({right:g}, {bottom:g}) ends before it begins")
        return
    flags = {name: int(row.cells.get(name, "0").strip().lower() in ("1", "true")) for name in ("crowd", "difficult")}
    content.object(
        image, label, (left, top, right - left, bottom - top), iscrowd=flags["crowd"], difficult=flags["difficult"]
    )


def _size(row: _Row, content: Content, places: _Places, name: str) -> tuple[int, int] | None:
    """The image's (height, width), from the table or else from the header of its file."""
    sides = [number(row.cells.get(side, ""), lambda value: 1 <= value <= LARGEST) for side in ("height", "width")]
    height, width = sides
    return content.size_of(places.root, name) if height is None or width is None else (int(height), int(width))


class _Places:
    """Where the images of a table lie below the root: beside the table, or anywhere below by a name that is there
    once.
    """

    def __init__(self, root: Path, file: Path, names: Sequence[str]) -> None:
        self.root = root
        parent = file.absolute().parent
        self.beside = parent.relative_to(root).as_posix() if parent.is_relative_to(root) else "."
        self.names = frozenset(names)
        self.by_name: dict[str, list[str]] = {}
        for name in names:
            self.by_name.setdefault(PurePosixPath(name).name, []).append(name)
            self.by_name.setdefault(PurePosixPath(name).stem, []).append(name)

    def of(self, row: _Row, table: _Table) -> str:
        written = row.image.replace("\\", "/")
        check_file_name(written, f"{table.file}: line {row.line}")
        plain = str(PurePosixPath(written))
        beside = str(PurePosixPath(self.beside) / plain)
        for name in (beside, plain):
            if name in self.names:
                return name
        last = PurePosixPath(plain).name
        found = self.by_name.get(last, []) or self.by_name.get(PurePosixPath(last).stem, [])
        alike = [name for name in found if name.endswith(f"/{plain}")] or found
        if len(alike) > 1:
            raise UserError(
                f"{table.file}: line {row.line}: image {written[:200]!r} may be {alike[0]!r} or {alike[1]!r}; write "
                f"the path below {self.root}"
            )
        return alike[0] if alike else beside


def _table(file: Path) -> _Table:
    """Raises UserError for a table without a header, or with a line that is too short."""
    text = read_text(file, "give a table with the header image,xmin,ymin,xmax,ymax,label")
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text))
    rows: list[_Row] = []
    faults = Faults()
    try:
        header = next(lines, [])
        columns = _columns(file, header)
        for cells in lines:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                faults.add(f"{file}: line {lines.line_num}: has {len(cells)} cells, the header {len(header)}")
                continue
            named = {meaning: cells[at].strip() for meaning, at in columns.items()}
            if not named["image"]:
                faults.add(f"{file}: line {lines.line_num}: names no image")
            elif not named["label"] and any(named[side] for side in BOX):
                faults.add(f"{file}: line {lines.line_num}: has a box and no label")
            else:
                rows.append(_Row(lines.line_num, named["image"], named["label"], named))
    except csv.Error as error:
        raise UserError(f"{file}: line {lines.line_num}: not readable as csv ({error}); {REMEDY}") from None
    faults.check(REMEDY)
    plain = [_plain(cell) for cell in header]
    return _Table(file, {"imageid", "labelname"} <= set(plain), rows)


def _delimiter(text: str) -> str:
    """The one of comma, semicolon and tab that the first line has most."""
    first = text.partition("\n")[0]
    return max(",;\t", key=first.count)


def _columns(file: Path, header: list[str]) -> dict[str, int]:
    plain = [_plain(cell) for cell in header]
    found = {
        meaning: next((plain.index(name) for name in names if name in plain), -1)
        for meaning, names in (COLUMNS | OPTIONAL).items()
    }
    missing = [meaning for meaning in COLUMNS if found[meaning] < 0]
    if missing:
        names = {meaning: COLUMNS[meaning][0] for meaning in COLUMNS}
        shown = shortened(",".join(header), 100)
        raise UserError(
            f"{file}: the first line {shown!r} has no column {', '.join(names[meaning] for meaning in missing)}; begin "
            f"with a header such as {','.join(('image', 'xmin', 'ymin', 'xmax', 'ymax', 'label'))}"
        )
    return {meaning: at for meaning, at in found.items() if at >= 0}


def _plain(cell: str) -> str:
    return "".join(character for character in cell.lower() if character.isalnum())
