"""Converts a data set from any format that is recognized to COCO, YOLO, VOC, csv or shards."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from resdet.coco.shards import image_bytes
from resdet.data.sets.coco import CocoDataset
from resdet.data.sets.formats import read_set
from resdet.data.sets.layouts import AUTO, LAYOUTS, layout_of
from resdet.data.sets.opened import is_folder, local, open_folder
from resdet.data.sets.shard_folder import write_shard
from resdet.data.sets.writers import WRITERS
from resdet.errors import UserError, row_of
from resdet.files import ANOTHER_OUTPUT, usable_paths, writing


@dataclass(frozen=True)
class ConvertedData:
    """The written folder; the images and objects of each split; and what the format cannot hold, with counts."""

    folder: Path
    images: dict[str, int]
    objects: dict[str, int]
    lost: dict[str, int]
    remarks: tuple[str, ...] = ()


@usable_paths()
def convert_data(
    source: str | Path,
    format: str,
    output: str | Path,
    *,
    images: str | Path | None = None,
    source_format: str = AUTO,
) -> ConvertedData:
    """Writes a data set into the new folder `output` as "coco", "yolo", "voc", "csv" or "shards", with copies of its
    images.

    `source` is a folder whose format is recognized, with all of its splits, or an annotation file with the folder of
    its `images`. `source_format` is that of a folder which may be of two formats. What training would skip is left out,
    and what it would mend is written mended. Raises UserError for data that cannot be read, and for a folder that is
    not empty.
    """
    write = row_of(WRITERS, format, "--format")
    folder = Path(output)
    with writing(folder):
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise UserError(f"{folder}: exists already and is not empty; {ANOTHER_OUTPUT}")
    splits = _splits(local(str(source)), None if images is None else Path(images), source_format)
    classes = {dataset.class_names for dataset in splits.values()}
    if len(classes) > 1:
        raise UserError(f"{source}: its splits list different classes; give all of them the same list")
    written = write(splits)
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = folder.with_name(f".{folder.name[:50]}.{secrets.token_hex(4)}.tmp")
        try:
            for name, text in written.texts.items():
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                _ = (temporary / name).write_text(text, encoding="utf-8", newline="")
            for name, path in written.images.items():
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                _ = (temporary / name).write_bytes(image_bytes(path))
            for name, samples in written.shards.items():
                write_shard(temporary / name, samples)
            _ = temporary.replace(folder)  # an empty folder gives way
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return ConvertedData(
        folder,
        {split: len(dataset) for split, dataset in splits.items()},
        {split: len(dataset.boxes) for split, dataset in splits.items()},
        dict(written.lost),
        tuple(dataset.report.summary() for dataset in splits.values()),
    )


def _splits(source: Path, images: Path | None, format: str) -> dict[str, CocoDataset]:
    if images is not None:
        if format != AUTO:
            raise UserError(f"--from {format}: is of a folder; a file says by its name what it is")
        return {"train": read_set(source, images)}
    if not is_folder(source):
        raise UserError(f"{source}: is no folder; give also the folder of its images")
    names = LAYOUTS[layout_of(source, format)].splits(source)
    found = [split for split in ("train", "val", "test") if split in names]
    return {split: open_folder(source, split, whole=True, format=format) for split in found}
