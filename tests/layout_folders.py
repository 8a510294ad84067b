"""One small data set, written by hand in every layout: two classes, three images with boxes, one without objects."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from PIL import Image

NAMES = ("bee", "wasp")
SIZE = (40, 20)  # width, height
# The corners of each image's boxes in pixels, by class.
OBJECTS: Mapping[str, list[tuple[str, tuple[int, int, int, int]]]] = {
    "a": [("bee", (4, 2, 12, 10)), ("wasp", (20, 5, 40, 20))],
    "b": [("wasp", (0, 0, 8, 4))],
    "c": [("bee", (10, 10, 20, 20))],
    "d": [],
}
TRAIN, VAL = ("a", "c", "d"), ("b",)


def picture(path: Path, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 180, 40)).save(path)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _ = path.write_text(content)


def coco(names: tuple[str, ...]) -> str:
    annotations = [
        {
            "image_id": image,
            "category_id": NAMES.index(name) + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": 0,
        }
        for image, stem in enumerate(names, start=1)
        for name, (x1, y1, x2, y2) in OBJECTS[stem]
    ]
    return json.dumps(
        {
            "images": [
                {"id": image, "file_name": f"{stem}.jpg", "width": SIZE[0], "height": SIZE[1]}
                for image, stem in enumerate(names, start=1)
            ],
            "annotations": [{"id": number, **record} for number, record in enumerate(annotations, start=1)],
            "categories": [{"id": number, "name": name} for number, name in enumerate(NAMES, start=1)],
        }
    )


def yolo_lines(stem: str) -> str:
    width, height = SIZE
    return "".join(
        f"{NAMES.index(name)} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} "
        f"{(x2 - x1) / width} {(y2 - y1) / height}\n"
        for name, (x1, y1, x2, y2) in OBJECTS[stem]
    )


def voc_xml(stem: str) -> str:
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax>"
        f"<ymax>{y2}</ymax></bndbox></object>"
        for name, (x1, y1, x2, y2) in OBJECTS[stem]
    )
    size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth></size>"
    return f"<annotation><filename>{stem}.jpg</filename>{size}{objects}</annotation>"


def csv_lines(names: tuple[str, ...], header: str = "image,xmin,ymin,xmax,ymax,label", folder: str = "") -> str:
    lines = [header]
    for stem in names:
        lines += [f"{folder}{stem}.jpg,{x1},{y1},{x2},{y2},{name}" for name, (x1, y1, x2, y2) in OBJECTS[stem]]
        lines += [f"{folder}{stem}.jpg,,,,,"] * (not OBJECTS[stem])
    return "\n".join(lines) + "\n"


def coco_2017(root: Path) -> None:
    for split, names in (("train", TRAIN), ("val", VAL)):
        text(root / f"annotations/instances_{split}2017.json", coco(names))
        text(root / f"annotations/captions_{split}2017.json", "{}")
        for stem in names:
            picture(root / f"{split}2017/{stem}.jpg")


def coco_roboflow(root: Path) -> None:
    for split, names in (("train", TRAIN), ("valid", VAL)):
        text(root / split / "_annotations.coco.json", coco(names))
        for stem in names:
            picture(root / split / f"{stem}.jpg")


def yolo_ultralytics(root: Path) -> None:
    text(root / "data.yaml", "path: ../datasets/bees\ntrain: images/train\nval: images/val\nnames: {0: bee, 1: wasp}\n")
    for split, names in (("train", TRAIN), ("val", VAL)):
        for stem in names:
            picture(root / f"images/{split}/{stem}.jpg")
            if OBJECTS[stem]:
                text(root / f"labels/{split}/{stem}.txt", yolo_lines(stem))


def yolo_roboflow(root: Path) -> None:
    text(root / "data.yaml", "train: ../train/images\nval: ../valid/images\n\nnc: 2\nnames: ['bee', 'wasp']\n")
    for split, names in (("train", TRAIN), ("valid", VAL)):
        for stem in names:
            picture(root / f"{split}/images/{stem}.jpg")
            text(root / f"{split}/labels/{stem}.txt", yolo_lines(stem))


def yolo_lists(root: Path) -> None:
    """CVAT's "Ultralytics YOLO Detection"."""
    text(root / "data.yaml", "names:\n  0: bee\n  1: wasp\npath: .\ntrain: train.txt\nval: val.txt\n")
    for split, names in (("train", TRAIN), ("val", VAL)):
        text(root / f"{split}.txt", "".join(f"data/images/{split}/{stem}.jpg\n" for stem in names))
        for stem in names:
            picture(root / f"images/{split}/{stem}.jpg")
            text(root / f"labels/{split}/{stem}.txt", yolo_lines(stem))


def yolo_darknet(root: Path) -> None:
    """CVAT's "YOLO 1.1"."""
    text(root / "obj.data", "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n")
    text(root / "obj.names", "bee\nwasp\n")
    for split, names in (("train", TRAIN), ("valid", VAL)):
        text(root / f"{split}.txt", "".join(f"data/obj_{split}_data/{stem}.jpg\n" for stem in names))
        for stem in names:
            picture(root / f"obj_{split}_data/{stem}.jpg")
            text(root / f"obj_{split}_data/{stem}.txt", yolo_lines(stem))


def voc_lists(root: Path) -> None:
    for split, names in (("train", TRAIN), ("val", VAL)):
        text(root / f"ImageSets/Main/{split}.txt", "".join(f"{stem}\n" for stem in names))
    for stem in OBJECTS:
        picture(root / f"JPEGImages/{stem}.jpg")
        text(root / f"Annotations/{stem}.xml", voc_xml(stem))


def voc_roboflow(root: Path) -> None:
    for split, names in (("train", TRAIN), ("valid", VAL)):
        for stem in names:
            picture(root / f"{split}/{stem}.jpg")
            text(root / f"{split}/{stem}.xml", voc_xml(stem))


def cvat_images(root: Path) -> None:
    shapes = {
        stem: "".join(
            f'<box label="{name}" occluded="0" xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}" z_order="0"></box>'
            for name, (x1, y1, x2, y2) in objects
        )
        for stem, objects in OBJECTS.items()
    }
    images = "".join(
        f'<image id="{number}" name="{stem}.jpg" subset="{"Validation" if stem in VAL else "Train"}" width="{SIZE[0]}" '
        f'height="{SIZE[1]}">{shapes[stem]}</image>'
        for number, stem in enumerate(OBJECTS)
    )
    labels = "".join(f"<label><name>{name}</name></label>" for name in NAMES)
    text(
        root / "annotations.xml",
        f"<annotations><version>1.1</version><meta><job><labels>{labels}</labels></job></meta>{images}</annotations>",
    )
    for stem in OBJECTS:
        picture(root / f"images/{'Validation' if stem in VAL else 'Train'}/{stem}.jpg")


def csv_tables(root: Path) -> None:
    for split, names in (("train", TRAIN), ("val", VAL)):
        text(root / f"{split}.csv", csv_lines(names))
        for stem in names:
            picture(root / f"images/{stem}.jpg")


def csv_roboflow(root: Path) -> None:
    for split, names in (("train", TRAIN), ("valid", VAL)):
        lines = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
        for stem in names:
            picture(root / f"{split}/{stem}.jpg")
            cells = [f"{name},{','.join(map(str, box))}" for name, box in OBJECTS[stem]] or [",,,,"]
            lines += [f"{stem}.jpg,{SIZE[0]},{SIZE[1]},{cell}" for cell in cells]
        text(root / f"{split}/_annotations.csv", "\n".join(lines))


WRITERS: dict[str, Callable[[Path], None]] = {
    writer.__name__: writer
    for writer in (
        coco_2017, coco_roboflow, yolo_ultralytics, yolo_roboflow, yolo_lists, yolo_darknet, voc_lists, voc_roboflow,
        cvat_images, csv_tables, csv_roboflow,
    )
}  # fmt: skip
