"""Writes a data set in another format: a literal table, one row a format. Each counts what the format cannot hold."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Float64

from resdet.coco.reader import Annotations
from resdet.config.plain_yaml import dump
from resdet.data.images.decode import image_size
from resdet.data.sets.coco import CocoDataset
from resdet.data.sets.shard_folder import MANIFEST, Shard, manifest_text
from resdet.errors import UserError

CROWD, DIFFICULT = "crowd regions", "marks of difficult objects (the objects stay)"
MASKS = "masks (the boxes stay)"
OTHER_MASKS = "masks that are not one polygon (the boxes stay)"
THIN = "boxes under one pixel wide or high"
NO_OBJECT = "classes without an object"
SHARD_SAMPLES = 1000  # at most, in a shard


@dataclass(frozen=True)
class Written:
    """The text files of a format, by their path; the images, from their path to their file; what was lost; and the
    archives with an image and a json a sample.
    """

    texts: dict[str, str] = field(default_factory=dict)
    images: dict[str, Path] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)
    shards: dict[str, list[tuple[Path, dict[str, Any]]]] = field(default_factory=dict)  # images and their json


@dataclass(frozen=True)
class Item:
    """An image of a split with its rows in `Annotations`, under a name that no other image of the data set has."""

    split: str
    name: str
    index: int
    rows: range


Splits = Mapping[str, CocoDataset]


def items(splits: Splits) -> list[Item]:
    """All images in their order. An image keeps the last part of its name, with its id where that is taken."""
    taken: set[str] = set()
    found: list[Item] = []
    for split, dataset in splits.items():
        for index in range(len(dataset)):
            path = PurePosixPath(dataset.file_names[index])
            name, copies = path.name, int(dataset.image_ids[index])
            while PurePosixPath(name).stem.casefold() in taken:
                name, copies = f"{path.stem}_{copies}{path.suffix}", copies + 1
            taken.add(PurePosixPath(name).stem.casefold())
            rows = dataset.rows(index)
            found.append(Item(split, name, index, range(rows.start, rows.stop)))
    return found


def _written(splits: Splits, folder: str) -> tuple[Written, list[Item]]:
    """The images in `folder`, in which {split} is the name of the split; those without a file are left out."""
    written, chosen = Written(), [item for item in items(splits) if not splits[item.split].missing[item.index]]
    for item in chosen:
        written.images[f"{folder.format(split=item.split)}/{item.name}"] = splits[item.split].path(item.index)
    return written, chosen


def as_coco(splits: Splits) -> Written:
    """COCO: annotations/instances_SPLIT.json and SPLIT/. Vertices of polygons are rounded to a fifth of a pixel, as
    pycocotools draws them.
    """
    written, chosen = _written(splits, "{split}")
    for split, dataset in splits.items():
        content = dataset.content
        own = [item for item in chosen if item.split == split]
        annotations = [_coco_object(content, row, item.index) for item in own for row in item.rows]
        whole = {
            "images": [
                {
                    "id": int(dataset.image_ids[item.index]),
                    "file_name": item.name,
                    "height": int(dataset.heights[item.index]),
                    "width": int(dataset.widths[item.index]),
                }
                for item in own
            ],
            "annotations": annotations,
            "categories": [
                {"id": int(number), "name": name}
                for number, name in zip(content.category_ids, content.class_names, strict=True)
            ],
        }
        written.texts[f"annotations/instances_{split}.json"] = json.dumps(whole, allow_nan=False)
    return written


def _coco_object(content: Annotations, row: int, image: int) -> dict[str, Any]:
    x1, y1, x2, y2 = content.boxes[row].tolist()
    record: dict[str, Any] = {
        "id": int(content.ids[row]),
        "image_id": int(content.image_ids[image]),
        "category_id": int(content.category_ids[content.labels[row]]),
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": float(content.areas[row]),
        "iscrowd": int(content.crowd[row]),
        **({"difficult": 1} if content.difficult[row] else {}),
    }
    runs, polygons = content.masks.run_lengths(row), content.masks.polygons(row)
    if len(runs):
        size = [int(content.heights[image]), int(content.widths[image])]
        record["segmentation"] = {"size": size, "counts": runs.tolist()}
    elif polygons:
        record["segmentation"] = [polygon.ravel().tolist() for polygon in polygons]
    return record


def as_yolo(splits: Splits) -> Written:
    """YOLO: data.yaml, images/SPLIT/ and labels/SPLIT/; an object whose mask is one polygon is that polygon."""
    written, chosen = _written(splits, "images/{split}")
    names = next(iter(splits.values())).class_names
    paths = {split: f"images/{split}" for split in splits}
    written.texts["data.yaml"] = dump({"path": ".", **paths, "names": dict(enumerate(names))})
    for item in chosen:
        dataset = splits[item.split]
        _check_upright(dataset, item)
        lines = [line for row in item.rows if (line := _yolo_line(dataset, item, row, written.lost))]
        stem = PurePosixPath(item.name).stem
        written.texts[f"labels/{item.split}/{stem}.txt"] = "".join(f"{line}\n" for line in lines)
    return written


def _check_upright(dataset: CocoDataset, item: Item) -> None:
    """YOLO's fractions are of the upright image, whose size is not written down."""
    upright, said = image_size(dataset.path(item.index)), (dataset.heights[item.index], dataset.widths[item.index])
    if upright != said:
        raise UserError(
            f"{dataset.path(item.index)}: is {upright[1]}x{upright[0]} pixels as it is seen, and its annotations are "
            f"of {said[1]}x{said[0]}, as it is stored; turn the image and remove its EXIF orientation first"
        )


def _yolo_line(dataset: CocoDataset, item: Item, row: int, lost: Counter[str]) -> str | None:
    content = dataset.content
    if content.crowd[row]:
        lost[CROWD] += 1
        return None
    lost.update([DIFFICULT] * bool(content.difficult[row]))
    width, height = int(dataset.widths[item.index]), int(dataset.heights[item.index])
    polygons = content.masks.polygons(row)
    if len(polygons) == 1:
        numbers = (polygons[0] / (width, height)).clip(0, 1).ravel()
    else:
        lost.update([OTHER_MASKS] * bool(polygons or len(content.masks.run_lengths(row))))
        x1, y1, x2, y2 = content.boxes[row] / (width, height, width, height)
        numbers: Float64[np.ndarray, " n"] = np.array(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1))
    return " ".join([str(int(content.labels[row])), *(f"{number:.8f}" for number in numbers)])


def as_voc(splits: Splits) -> Written:
    """Pascal VOC: Annotations/, JPEGImages/ and ImageSets/Main/SPLIT.txt."""
    written, chosen = _written(splits, "JPEGImages")
    for split in splits:
        stems = [PurePosixPath(item.name).stem for item in chosen if item.split == split]
        written.texts[f"ImageSets/Main/{split}.txt"] = "".join(f"{stem}\n" for stem in stems)
    used: Counter[int] = Counter()
    for item in chosen:
        dataset = splits[item.split]
        tree = ElementTree.Element("annotation")
        _texts(tree, {"filename": item.name})
        sides = {"width": dataset.widths[item.index], "height": dataset.heights[item.index], "depth": 3}
        _texts(ElementTree.SubElement(tree, "size"), sides)
        for row in item.rows:
            if _voc_object(tree, dataset, row, written.lost):
                used[int(dataset.content.labels[row])] += 1
        ElementTree.indent(tree)
        written.texts[f"Annotations/{PurePosixPath(item.name).stem}.xml"] = ElementTree.tostring(tree, "unicode") + "\n"
    _lose_unused(splits, used, written)
    return written


def _voc_object(tree: ElementTree.Element, dataset: CocoDataset, row: int, lost: Counter[str]) -> bool:
    content = dataset.content
    x1, y1, x2, y2 = content.boxes[row].tolist()
    if content.crowd[row] or x2 - x1 < 1 or y2 - y1 < 1:
        lost[CROWD if content.crowd[row] else THIN] += 1
        return False
    lost.update([MASKS] * bool(content.masks.polygons(row) or len(content.masks.run_lengths(row))))
    item = ElementTree.SubElement(tree, "object")
    name = dataset.class_names[content.labels[row]]
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        raise UserError(f"class {name!r}: xml cannot hold its control characters; rename it with data.rename")
    _texts(item, {"name": name, "difficult": int(content.difficult[row])})
    corners = {"xmin": x1 + 1, "ymin": y1 + 1, "xmax": x2, "ymax": y2}
    _texts(ElementTree.SubElement(item, "bndbox"), {side: f"{value:.10g}" for side, value in corners.items()})
    return True


def _texts(parent: ElementTree.Element, values: Mapping[str, object]) -> None:
    for name, value in values.items():
        ElementTree.SubElement(parent, name).text = str(value)


def as_csv(splits: Splits) -> Written:
    """Tables: SPLIT.csv and images/SPLIT/."""
    written, chosen = _written(splits, "images/{split}")
    used: Counter[int] = Counter()
    for split, dataset in splits.items():
        text, content = io.StringIO(newline=""), dataset.content
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["image", "width", "height", "xmin", "ymin", "xmax", "ymax", "label", "iscrowd", "difficult"])
        for item in (item for item in chosen if item.split == split):
            image = [f"images/{split}/{item.name}", dataset.widths[item.index], dataset.heights[item.index]]
            for row in item.rows:
                label = int(content.labels[row])
                flags = [int(content.crowd[row]), int(content.difficult[row])]
                table.writerow([*image, *content.boxes[row].tolist(), dataset.class_names[label], *flags])
                used[label] += 1
                masked = bool(content.masks.polygons(row) or len(content.masks.run_lengths(row)))
                written.lost.update([MASKS] * masked)
            if not item.rows:
                table.writerow([*image, *[""] * 7])
        written.texts[f"{split}.csv"] = text.getvalue()
    _lose_unused(splits, used, written)
    return written


def as_shards(splits: Splits) -> Written:
    """Tar archives as WebDataset's: shards.json and SPLIT-000000.tar. Vertices are rounded as for COCO."""
    written, found = Written(), {split: list[Shard]() for split in splits}
    chosen = [item for item in items(splits) if not splits[item.split].missing[item.index]]
    for split, dataset in splits.items():
        own = [item for item in chosen if item.split == split]
        for start in range(0, len(own), SHARD_SAMPLES):
            name = f"{split}-{start // SHARD_SAMPLES:06d}.tar"
            samples = [(dataset.path(item.index), _shard_sample(dataset, item)) for item in own[start:][:SHARD_SAMPLES]]
            written.shards[name] = samples
            found[split].append(Shard(name, len(samples)))
    written.texts[MANIFEST] = manifest_text(dict(splits), found)
    return written


def _shard_sample(dataset: CocoDataset, item: Item) -> dict[str, Any]:
    return {
        "id": int(dataset.image_ids[item.index]),
        "file_name": item.name,
        "height": int(dataset.heights[item.index]),
        "width": int(dataset.widths[item.index]),
        "annotations": [_coco_object(dataset.content, row, item.index) for row in item.rows],
    }


def _lose_unused(splits: Splits, used: Counter[int], written: Written) -> None:
    unused = len(next(iter(splits.values())).class_names) - len(used)
    written.lost.update({NO_OBJECT: unused} if unused else {})


WRITERS: dict[str, Callable[[Splits], Written]] = {
    "coco": as_coco,
    "yolo": as_yolo,
    "voc": as_voc,
    "csv": as_csv,
    "shards": as_shards,
}
