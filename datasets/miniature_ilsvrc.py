"""Writes a miniature of ILSVRC in the layout of its archives: generated shapes in place of photos, 8 classes for 1000.

    python datasets/miniature_ilsvrc.py FOLDER [--train 4] [--val 16] [--size 96] [--seed 0]

FOLDER/ILSVRC then has the three tracks of ImageNet (docs/ilsvrc.md), and `data.root=FOLDER` is all that a config needs:

    Data/CLS-LOC/train/n90000001/n90000001_1.JPEG ...   Data/CLS-LOC/val/ILSVRC2012_val_00000001.JPEG ...
    Annotations/CLS-LOC/train/n90000001/n90000001_1.xml ...   Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml ...
    Data/DET/train/n90000001/n90000001_1.JPEG ...   Annotations/DET/...   (the same tree, several objects an image)
    ImageSets/CLS-LOC/train_loc.txt val.txt   ImageSets/DET/train.txt val.txt
    devkit/data/map_clsloc.txt map_det.txt ILSVRC2015_clsloc_validation_ground_truth.txt
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from resdet.data.sets.shapes import CLASSES, Scene, draw_scene

SYNSETS = [f"n9{number:07d}" for number in range(1, len(CLASSES) + 1)]
NUMBERS = [3, 1, 2, 8, 5, 7, 4, 6]  # the devkit's numbers do not follow the order of the synsets
QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 95]


def main() -> None:
    """Parses the command line and writes the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=4, help="training images of each class")
    parser.add_argument("--val", type=int, default=16, help="val images")
    parser.add_argument("--size", type=int, default=96, help="pixels a side of an image")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write(args.folder, train=args.train, val=args.val, size=args.size, seed=args.seed)


def write(folder: Path, *, train: int = 4, val: int = 16, size: int = 96, seed: int = 0) -> Path:
    """Writes FOLDER/ILSVRC and returns its path; a pure function of its arguments."""
    root = folder / "ILSVRC"
    data = root / "devkit" / "data"
    data.mkdir(parents=True, exist_ok=True)
    lines = [f"{synset} {number} {name}" for synset, number, name in zip(SYNSETS, NUMBERS, CLASSES, strict=True)]
    for name in ("map_clsloc.txt", "map_det.txt"):
        (data / name).write_text("\n".join(lines) + "\n")
    for track, objects in (("CLS-LOC", 1), ("DET", 4)):
        rng = np.random.default_rng([seed, objects])
        lists = root / "ImageSets" / track
        lists.mkdir(parents=True, exist_ok=True)
        trained = _write_train(root, track, rng, images=train, size=size, objects=objects)
        labels = _write_val(root, track, rng, images=val, size=size, objects=objects)
        entries = [f"ILSVRC2012_val_{number:08d}" for number in range(1, val + 1)]
        _write_list(lists / ("train_loc.txt" if track == "CLS-LOC" else "train.txt"), trained)
        _write_list(lists / "val.txt", entries)
        if track == "CLS-LOC":
            numbers = [str(NUMBERS[label]) for label in labels]
            (data / "ILSVRC2015_clsloc_validation_ground_truth.txt").write_text("\n".join(numbers) + "\n")
    return root


def _write_train(
    root: Path, track: str, rng: np.random.Generator, *, images: int, size: int, objects: int
) -> list[str]:
    """Images of each class in its folder; in an image of several objects the class is that of the first."""
    counts = dict.fromkeys(SYNSETS, 0)
    entries: list[str] = []
    while min(counts.values()) < images:
        scene = _scene(rng, size, objects)
        synset = SYNSETS[scene.labels[0]]
        if counts[synset] < images:
            counts[synset] += 1
            entries.append(f"{synset}/{synset}_{counts[synset]}")
            _write_image(root, track, "train", entries[-1], scene)
    return sorted(entries)


def _write_val(root: Path, track: str, rng: np.random.Generator, *, images: int, size: int, objects: int) -> list[int]:
    """One folder of images; returns the label of the first object of each."""
    scenes = [_scene(rng, size, objects) for _ in range(images)]
    for number, scene in enumerate(scenes, start=1):
        _write_image(root, track, "val", f"ILSVRC2012_val_{number:08d}", scene)
    return [scene.labels[0] for scene in scenes]


def _scene(rng: np.random.Generator, size: int, objects: int) -> Scene:
    while not (scene := draw_scene(rng, size=size, max_objects=objects)).labels:
        pass
    return scene


def _write_image(root: Path, track: str, split: str, entry: str, scene: Scene) -> None:
    image = root / "Data" / track / split / f"{entry}.JPEG"
    xml = root / "Annotations" / track / split / f"{entry}.xml"
    for path in (image, xml):
        path.parent.mkdir(parents=True, exist_ok=True)
    ok, data = cv2.imencode(".jpg", scene.image[:, :, ::-1], QUALITY)
    assert ok
    image.write_bytes(data.tobytes())
    height, width = scene.image.shape[:2]
    parts = [_object(SYNSETS[label], mask) for label, mask in zip(scene.labels, scene.masks, strict=True)]
    xml.write_text(
        f"<annotation><folder>{split}</folder><filename>{image.stem}</filename>"
        f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>{''.join(parts)}</annotation>\n"
    )


def _object(synset: str, mask: np.ndarray) -> str:
    """Corners count from 0, and xmax and ymax belong to the object."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (
        f"<object><name>{synset}</name><bndbox><xmin>{columns[0]}</xmin><ymin>{rows[0]}</ymin>"
        f"<xmax>{columns[-1]}</xmax><ymax>{rows[-1]}</ymax></bndbox></object>"
    )


def _write_list(path: Path, entries: list[str]) -> None:
    """A name and its number in each line, as the lists of ILSVRC have them."""
    path.write_text("".join(f"{entry} {number}\n" for number, entry in enumerate(entries, start=1)))


if __name__ == "__main__":
    main()
