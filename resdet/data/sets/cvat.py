"""Converts the xml file of CVAT's export "CVAT for images 1.1": boxes, polygons and masks of all images in one file.

    FOLDER/annotations.xml    FOLDER/images/a.jpg (or images/train/a.jpg; `subset` of an image is its split)

Polylines, points, skeletons, cuboids and tags contain no box, and are skipped and counted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element

from resdet.coco.checks import LARGEST
from resdet.coco.image_files import check_file_name
from resdet.data.sets import voc_xml
from resdet.data.sets.cache import converted_file, state
from resdet.data.sets.content import Content, Faults, number
from resdet.data.sets.folders import images_below, split_in
from resdet.errors import UserError
from resdet.text import shortened

VERSION = 1  # of the conversion: part of the cached file's name
LOOKS_FOR = "annotations.xml of CVAT for images 1.1"
LARGEST_FILE = 2**28  # bytes
REMEDY = "correct or remove it, or export it again"


def recognizes(place: Path) -> bool:
    return _file(place).is_file() and (place.is_dir() or place.suffix == ".xml")


def splits(place: Path) -> tuple[str, ...]:
    """The splits that the file has; an image without one is for training."""
    return tuple(dict.fromkeys(map(_split, _tree(_file(place)).iter("image"))))


def read(place: Path, split: str) -> tuple[Path, Path]:
    """The COCO file in the cache, and the folder that its file names are relative to."""
    file = _file(place).absolute()
    root = file.parent
    names = images_below(root, ".")
    fingerprint = [f"cvat {VERSION} {split}", state(file), *names]
    return converted_file(f"cvat-{root.name}-{split}", fingerprint, partial(_content, file, split, names)), root


def _file(place: Path) -> Path:
    return place / "annotations.xml" if place.is_dir() else place


def _tree(file: Path) -> Element:
    tree = voc_xml.read_tree(file, "give CVAT's annotations.xml", largest=LARGEST_FILE)
    if tree.tag != "annotations":
        raise UserError(f"{file}: begins with <{tree.tag[:40]}>; expected CVAT's <annotations>")
    return tree


def _split(image: Element) -> str:
    return split_in(image.get("subset") or PurePosixPath(image.get("name") or "").parent.name) or "train"


def _content(file: Path, split: str, names: list[str]) -> dict[str, Any]:
    tree = _tree(file)
    labels = _labels(tree)
    ids = {label: at for at, label in enumerate(labels, start=1)}
    content, faults = Content(f"{file} ({split})", {at: label for label, at in ids.items()}), Faults()
    if not ids:
        raise UserError(f"{file}: has no label; there is nothing to learn")
    for element in tree.iter("image"):
        if _split(element) != split:
            continue
        where = f"{file}: image {shortened(element.get('name') or '', 200)!r}"
        size = [number(element.get(side) or "", lambda value: 1 <= value <= LARGEST) for side in ("height", "width")]
        height, width = (0 if side is None else int(side) for side in size)
        if not height or not width:
            raise UserError(f"{where}: has no width and height; {REMEDY}")
        image = content.image(_image_name(element, names, where), height, width)
        for shape in element:
            _add(content, shape, (image, height, width), ids, faults, where)
    faults.check(REMEDY)
    return content.as_coco()


def _labels(tree: Element) -> list[str]:
    """The labels of the task or project in their order, then those that only shapes have."""
    named = [(element.findtext("name") or "").strip() for element in tree.iter("label")]
    used = [shape.get("label") or "" for image in tree.iter("image") for shape in image if shape.tag in SHAPES]
    return [name for name in dict.fromkeys([*named, *sorted(set(used))]) if name]


def _image_name(element: Element, names: list[str], where: str) -> str:
    """The image's file below the root: as it is called, in `images`, in the folder of its subset, or alone by its
    tail.
    """
    name = (element.get("name") or "").replace("\\", "/")
    check_file_name(name, where)
    subset = element.get("subset") or ""
    tried = [f"images/{subset}/{name}", f"images/{name}", name]
    found = [str(PurePosixPath(path)) for path in tried if str(PurePosixPath(path)) in names]
    tails = [path for path in names if path.endswith(f"/{name}")]
    return found[0] if found else tails[0] if len(tails) == 1 else f"images/{name}"


def _add(
    content: Content, shape: Element, image: tuple[int, int, int], ids: dict[str, int], faults: Faults, where: str
) -> None:
    if shape.tag not in SHAPES:
        content.skipped[f"CVAT's <{shape.tag[:20]}>, which has no box"] += 1
        return
    label = (shape.get("label") or "").strip()
    if label not in ids:
        faults.add(f"{where}: a {shape.tag} without a label")
        return
    fields = SHAPES[shape.tag](shape, image[1], image[2])
    if isinstance(fields, str):
        faults.add(f"{where}: {shape.tag} of {label!r}: {fields}")
        return
    box = fields.pop("bbox")
    content.object(image[0], ids[label], box, **fields)


def _numbers(texts: list[str]) -> list[float] | None:
    values = [number(text, lambda value: abs(value) <= LARGEST) for text in texts]
    return None if None in values else [value for value in values if value is not None]


def _box(shape: Element, height: int, width: int) -> dict[str, Any] | str:
    texts = [shape.get(name) or "" for name in ("xtl", "ytl", "xbr", "ybr")]
    corners = _numbers(texts)
    if corners is None:
        return f"its corners {shortened(' '.join(texts), 60)!r} are no pixels"
    left, top, right, bottom = corners
    if float(number(shape.get("rotation") or "0", lambda _: True) or 0):
        return "is rotated; give it a polygon or an upright box"
    return {"bbox": (left, top, right - left, bottom - top)}


def _polygon(shape: Element, height: int, width: int) -> dict[str, Any] | str:
    texts = (shape.get("points") or "").replace(";", ",").split(",")
    points = _numbers(texts)
    if points is None or len(points) % 2 or len(points) < 6:
        return f"its points {shortened(shape.get('points') or '', 60)!r} are not at least three pairs of pixels"
    xs, ys = points[::2], points[1::2]
    box = (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
    return {"bbox": box, "segmentation": [points], "area": None}


def _mask(shape: Element, height: int, width: int) -> dict[str, Any] | str:
    """Runs along the rows of the mask's own rectangle, background first; COCO's go down the columns of the image."""
    import numpy as np

    sides = _numbers([shape.get(name) or "" for name in ("left", "top", "width", "height")])
    runs = _numbers((shape.get("rle") or "").split(","))
    if sides is None or runs is None or min(*sides, *runs) < 0:
        return "its rle, left, top, width or height is no number"
    left, top, wide, high = map(int, sides)
    if left + wide > width or top + high > height or sum(runs) != wide * high or not wide or not high:
        return f"its runs do not fill {wide}x{high} pixels inside the image"
    whole = np.zeros((height, width), bool)
    bits = np.repeat(np.arange(len(runs)) % 2 == 1, np.array(runs, np.int64)).reshape(high, wide)
    whole[top : top + high, left : left + wide] = bits
    flat = whole.T.ravel()
    changes = np.flatnonzero(np.diff(np.concatenate(([False], flat))))
    counts = np.diff(np.concatenate(([0], changes, [flat.size])))
    return {
        "bbox": sides,
        "segmentation": {"size": [height, width], "counts": counts.tolist()},
        "area": int(bits.sum()),
    }


# From the name of a shape to a function that gives its fields (bbox, ...), or says what is wrong.
SHAPES: dict[str, Callable[[Element, int, int], dict[str, Any] | str]] = {
    "box": _box,
    "polygon": _polygon,
    "mask": _mask,
}
