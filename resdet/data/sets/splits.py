"""Which files the train and val split of a config mean: a literal table of known sets, one row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from resdet.config import DataConfig
from resdet.data.sets import ilsvrc_boxes
from resdet.data.sets.shapes import shapes_folder
from resdet.data.sets.voc import KNOWN_SETS as VOC_SETS
from resdet.data.sets.voc import known_split
from resdet.errors import UserError, row_of

KNOWN_SETS = {  # name -> split -> (annotation file, images folder), below data.root
    "coco2017": {
        "train": ("coco/annotations/instances_train2017.json", "coco/train2017"),
        "val": ("coco/annotations/instances_val2017.json", "coco/val2017"),
    },
    "coco2014": {
        "train": ("coco/annotations/instances_train2014.json", "coco/train2014"),
        "val": ("coco/annotations/instances_val2014.json", "coco/val2014"),
    },
}


Files = tuple[Path, Path]  # the annotation file, and the folder that its file names are relative to


def _generated_shapes(data: DataConfig, split: str) -> Files:
    folder = shapes_folder(**asdict(data.shapes))
    return folder / "annotations" / f"instances_{split}.json", folder / split


def _coco(name: str, data: DataConfig, split: str) -> Files:
    annotations, images = (Path(data.root) / part for part in KNOWN_SETS[name][split])
    for path in (annotations, images):
        if not path.exists():
            raise UserError(
                f"{path} of data.{split}.name={name} is missing; "
                "put the files where datasets/README.md says, or set data.root"
            )
    return annotations, images


def _voc(name: str, data: DataConfig, split: str) -> Files:
    return known_split(Path(data.root) / "VOCdevkit", name, split)


def _ilsvrc(name: str, data: DataConfig, split: str) -> Files:
    return ilsvrc_boxes.known_split(Path(data.root), name, split)


# From the name to a function of (data, "train" or "val"), which makes or converts what is not there yet.
SETS: dict[str, Callable[[DataConfig, str], Files]] = {
    "shapes": _generated_shapes,
    **{name: partial(_coco, name) for name in KNOWN_SETS},
    **{name: partial(_voc, name) for name in VOC_SETS},
    **{name: partial(_ilsvrc, name) for name in ilsvrc_boxes.KNOWN_SETS},
}


def name_of(data: DataConfig, split: str) -> str:
    """The data of a split as the config names them, for a person."""
    chosen = {"train": data.train, "val": data.val}[split]
    return ", ".join(data.path) if data.path else chosen.annotations or chosen.name


def split_files(data: DataConfig, split: str) -> Files:
    """The annotation file of `split`, "train" or "val", and the folder that its file names are relative to.

    A generated set is created, and a known VOC set converted, at first use. Raises UserError for a file that does not
    exist.
    """
    chosen = {"train": data.train, "val": data.val}[split]
    if chosen.annotations and chosen.images:
        return Path(chosen.annotations), Path(chosen.images)
    if chosen.annotations or chosen.images:
        absent = "images" if chosen.annotations else "annotations"
        raise UserError(f"data.{split}.{absent} is not given; data.{split}.annotations and .images go together")
    return row_of(SETS, chosen.name, f"data.{split}.name")(data, split)
