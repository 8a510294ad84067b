"""Finds the files of the train and val split of a config."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from resdet.config import DataConfig
from resdet.data.sets.shapes import shapes_folder
from resdet.data.sets.voc import KNOWN_SETS as VOC_SETS
from resdet.data.sets.voc import known_split
from resdet.errors import UserError, did_you_mean

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


def split_files(data: DataConfig, split: str) -> tuple[Path, Path]:
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
    if chosen.name == "shapes":
        folder = shapes_folder(**asdict(data.shapes))
        return folder / "annotations" / f"instances_{split}.json", folder / split
    if chosen.name in VOC_SETS:
        return known_split(Path(data.root) / "VOCdevkit", chosen.name, split)
    if chosen.name not in KNOWN_SETS:
        known = ("shapes", *KNOWN_SETS, *VOC_SETS)
        raise UserError(f"data.{split}.name={chosen.name} is no known data set{did_you_mean(chosen.name, known)}")
    annotations, images = (Path(data.root) / part for part in KNOWN_SETS[chosen.name][split])
    for path in (annotations, images):
        if not path.exists():
            raise UserError(
                f"{path} of data.{split}.name={chosen.name} is missing; "
                "put the files where datasets/README.md says, or set data.root"
            )
    return annotations, images
