"""Cuts objects out of COCO's images whose class is also one of ImageNet's, into a folder per ImageNet class.

    python datasets/imagenet_crops_of_coco.py ANNOTATIONS.json IMAGES OUTPUT

A class is taken only if the label is beyond doubt: COCO's and ImageNet's class have the same meaning, and ImageNet has
no other class for such an object. COCO's dog is one of 118 breeds there, its car a cab, a minivan or a convertible, its
orange may be a lemon's kin; its pizza is often a slice beside other dishes, and its teddy bear is dressed.
A crop is the object's box with a margin, of at least 96 pixels a side, of an object that is no crowd.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2

SYNSETS = {
    "zebra": "n02391049",
    "umbrella": "n04507155",
    "banana": "n07753592",
    "parking meter": "n03891332",
    "microwave": "n03761084",
}
SMALLEST = 96  # pixels of a box's sides
MARGIN = 0.1  # of the box's longer side


def main() -> None:
    """Parses the command line, writes the folder and prints how many crops each class has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    for synset, count in write(args.annotations, args.images, args.output).items():
        print(f"{synset}: {count}")


def write(annotations: Path, images: Path, output: Path) -> dict[str, int]:
    """Writes OUTPUT/SYNSET/ID.png for each object; returns the number of crops of each synset that has any."""
    content = json.loads(annotations.read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    files = {image["id"]: image["file_name"] for image in content["images"]}
    counts: dict[str, int] = {}
    for item in content["annotations"]:
        synset = SYNSETS.get(names[item["category_id"]])
        left, top, width, height = item["bbox"]
        if synset is None or item.get("iscrowd") or min(width, height) < SMALLEST:
            continue
        image = cv2.imread(str(images / files[item["image_id"]]))
        assert image is not None, files[item["image_id"]]
        margin = MARGIN * max(width, height)
        rows = slice(max(0, round(top - margin)), round(top + height + margin))
        columns = slice(max(0, round(left - margin)), round(left + width + margin))
        (output / synset).mkdir(parents=True, exist_ok=True)
        written = cv2.imwrite(str(output / synset / f"{item['id']}.png"), image[rows, columns])
        assert written
        counts[synset] = counts.get(synset, 0) + 1
    return dict(sorted(counts.items()))


if __name__ == "__main__":
    main()
