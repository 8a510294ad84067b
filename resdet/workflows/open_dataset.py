"""Opens a data set as `resdet check-data` and training do."""

from __future__ import annotations

from pathlib import Path

from resdet.config import Config
from resdet.data.batches.loader import open_split
from resdet.data.sets.coco import CocoDataset
from resdet.data.sets.formats import read_set
from resdet.data.sets.opened import open_folder
from resdet.errors import UserError
from resdet.files import usable_paths
from resdet.workflows.train import read_config


@usable_paths()
def open_dataset(
    source: str | Path | Config, images: str | Path | None = None, *, split: str | None = None
) -> CocoDataset:
    """The checked annotations of a file and its folder of images, or those of a split of a folder or of a config.

    `open_dataset("annotations.json", "images")` reads a COCO file, a VOC list of images or a table of boxes;
    `open_dataset("FOLDER", split="val")` recognizes the format of a folder (docs/data.md);
    `open_dataset("quickstart", split="val")` opens the data that a config (a Config, its name or its file) trains or
    evaluates on. `dataset.report` says what was read, skipped and corrected.

    Raises UserError for data that cannot be used.
    """
    if images is not None and split is not None:
        raise UserError(f"images={images} and split={split} exclude each other; give the images of a file, or a split")
    if split is not None:
        if split not in ("train", "val"):
            raise UserError(f"split={split} is not known; give 'train' or 'val'")
        if not isinstance(source, Config) and Path(source).is_dir():
            return open_folder(Path(source), split)
        return open_split(read_config(source).data, split)
    if images is None or isinstance(source, Config):
        raise UserError(f"{source}: give the folder of its images, or split='train' or 'val' of a folder or a config")
    return read_set(Path(source), Path(images))
