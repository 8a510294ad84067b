"""Writes an annotation file of the size of COCO's train2017, to measure how fast it is read: 118,287 images and 860,001
objects, nearly all of them with polygons. The same numbers come out every time.

  python datasets/train2017_sized.py /tmp/large.json            (about half a gigabyte, some seconds)
  python datasets/train2017_sized.py /tmp/small.json --share 0.01
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

IMAGES, OBJECTS, CATEGORIES = 118_287, 860_001, 80
CROWD = 0.012  # of the objects: crowd regions, with run lengths
SECOND = 0.2  # of the objects: a second polygon
VERTICES = 22.0  # of a polygon, on average
SIZES = ((480, 640), (640, 480), (427, 640), (640, 427), (375, 500), (612, 612))  # height, width
SHAPES = 4096  # that are drawn for each size of image, and used many times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _ = parser.add_argument("file", type=Path)
    _ = parser.add_argument("--share", type=float, default=1.0, help="of all images and objects (default: all)")
    _ = parser.add_argument("--images", type=Path, help="also make an empty file for each image in this folder")
    args = parser.parse_args()
    images, objects = max(1, round(IMAGES * args.share)), max(1, round(OBJECTS * args.share))
    with args.file.open("w") as file:
        write(file, images, objects, sizes=SIZES, name=name_of)
    if args.images is not None:
        args.images.mkdir(parents=True, exist_ok=True)
        for number in range(images):
            (args.images / name_of(number)).touch()


def write(
    file: TextIO,
    images: int,
    objects: int,
    *,
    sizes: Sequence[tuple[int, int]],
    name: Callable[[int], str],
) -> None:
    """A COCO file whose annotations are in no order of images, as in COCO's own. `sizes` are (height, width)."""
    rng = np.random.default_rng(2017)
    chosen = rng.integers(len(sizes), size=images)
    _ = file.write('{"info": {"description": "as large as COCO 2017"}, "licenses": [], "images": [')
    for number in range(images):
        height, width = sizes[chosen[number]]
        record = {
            "license": 3,
            "file_name": name(number),
            "coco_url": f"http://images.cocodataset.org/train2017/{name(number)}",
            "height": height,
            "width": width,
            "date_captured": "2013-11-14 11:18:45",
            "id": number + 1,
        }
        _ = file.write(", " * (number > 0) + json.dumps(record))
    _ = file.write('], "annotations": [')
    for number, text in enumerate(_annotations(rng, sizes, chosen, objects)):
        _ = file.write(", " * (number > 0) + text)
    categories = [
        {"supercategory": "thing", "id": number + 1, "name": f"class {number}"} for number in range(CATEGORIES)
    ]
    _ = file.write(f'], "categories": {json.dumps(categories)}}}')


def name_of(number: int) -> str:
    return f"{number + 1:012d}.jpg"


def _annotations(
    rng: np.random.Generator, sizes: Sequence[tuple[int, int]], size_of: np.ndarray, objects: int
) -> Iterator[str]:
    drawn = [[_shape(rng, height, width) for _ in range(SHAPES)] for height, width in sizes]
    order = rng.permutation(np.arange(objects) % len(size_of)).tolist()
    labels = rng.integers(1, CATEGORIES + 1, objects).tolist()
    shapes = rng.integers(SHAPES, size=objects).tolist()
    for number, (image, label, shape) in enumerate(zip(order, labels, shapes, strict=True), start=1):
        yield f'{{{drawn[size_of[image]][shape]}, "image_id": {image + 1}, "category_id": {label}, "id": {number}}}'


def _shape(rng: np.random.Generator, height: int, width: int) -> str:
    """The fields of an annotation that describe its shape."""
    polygons = [_polygon(rng, height, width) for _ in range(1 + (rng.random() < SECOND))]
    points = np.concatenate(polygons)
    (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
    crowd = bool(rng.random() < CROWD)
    fields = {
        "segmentation": _runs(height, width) if crowd else [polygon.ravel().tolist() for polygon in polygons],
        "area": round((right - left) * (bottom - top) * 0.7, 4),
        "iscrowd": int(crowd),
        "bbox": [left, top, round(right - left, 2), round(bottom - top, 2)],
    }
    return json.dumps(fields)[1:-1]


def _polygon(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """An outline around a place in the image, with numbers of two places as in COCO."""
    count = 3 + int(rng.geometric(1 / (VERTICES - 3)))
    radius = float(np.exp(rng.uniform(np.log(6), np.log(120))))
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    rays = radius * rng.uniform(0.6, 1.0, count)
    centre = rng.uniform((0, 0), (width, height))
    points = centre + np.stack((np.cos(angles), np.sin(angles)), axis=1) * rays[:, None]
    return points.clip((0, 0), (width, height)).round(2)


def _runs(height: int, width: int) -> dict[str, list[int]]:
    """A band down the middle of the image."""
    before, band = height * (width // 4), height * (width // 2)
    return {"counts": [before, band, height * width - before - band], "size": [height, width]}


if __name__ == "__main__":
    main()
