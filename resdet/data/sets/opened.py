"""Opens a split of a config: the folders of data.path, or the files of data.train and data.val, as one data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from resdet.coco.annotation_file import AnnotationFile
from resdet.coco.image_files import missing_files
from resdet.coco.reader import Annotations, checked
from resdet.coco.selection import Part, joined, of_classes, renamed, with_remark
from resdet.config import DataConfig
from resdet.data.sets.cache import read_converted
from resdet.data.sets.coco import CocoDataset
from resdet.data.sets.formats import read_content, read_records, set_of
from resdet.data.sets.held_out import part_of
from resdet.data.sets.kept_empty import keep_empty
from resdet.data.sets.layouts import LAYOUTS, layout_of
from resdet.data.sets.splits import split_files
from resdet.errors import UserError
from resdet.text import first_few

Source = tuple[AnnotationFile, Path]  # records, and the folder that their file names are relative to


def open_set(data: DataConfig, split: str) -> CocoDataset:
    """The checked data set of `split`, "train" or "val", with the classes and images that the config chooses.

    Raises UserError for a folder or file that does not fit, and for a training set without an object.
    """
    tolerated = data.max_bad_fraction if data.on_bad_image == "skip" else 0.0
    records, images = split_records(data, split)
    training = split == "train"
    dataset = set_of(records, images, require_objects=training, max_missing_fraction=tolerated)
    return keep_empty(dataset, data.empty_images, data.val_seed) if training else dataset


def split_records(data: DataConfig, split: str) -> Source:
    """The records of a split before their verdicts."""
    if data.path is None:
        annotations, images = split_files(data, split)
        sources = [(read_records(annotations, images), images)]
    else:
        _check_one_way(data)
        sources = [_of_folder(Path(path), data, split) for path in data.path]
    return _as_one(sources, data)


def folder_records(place: Path, split: str, data: DataConfig | None = None) -> Source:
    """The same for one folder, whose format is recognized, by default with all of its classes and images."""
    chosen = DataConfig() if data is None else data
    return _as_one([_of_folder(place, chosen, split)], chosen)


def open_folder(place: Path, split: str, *, whole: bool = False) -> CocoDataset:
    """The data set of a folder whose format is recognized (or of its data.yaml), as training opens it; `whole`: as the
    folder has it, so that nothing is held out as val.
    """
    if whole:
        name = layout_of(place)
        _check_split(place, name, split)
        annotations, images = LAYOUTS[name].read(place, split)
        return set_of(read_converted(annotations), images)
    return set_of(*folder_records(place, split))


def scored_content(place: Path) -> Annotations:
    """What is to be found: a file of any format, or the val split of a folder."""
    return checked(folder_records(place, "val")[0]) if is_folder(place) else read_content(place)


def is_folder(place: Path) -> bool:
    """Whether a path names a data set by its folder, or by the data.yaml in it, and not by an annotation file."""
    return place.is_dir() or place.suffix in (".yaml", ".yml", ".data")


def _check_one_way(data: DataConfig) -> None:
    for split, files in (("train", data.train), ("val", data.val)):
        if files.annotations or files.images:
            raise UserError(
                f"data.path and data.{split}.annotations (or .images) are both given; take one out: data.path=null, or "
                f"data.{split}.annotations=null data.{split}.images=null"
            )


def _of_folder(place: Path, data: DataConfig, split: str) -> Source:
    """The records of a folder's split. Without a val split, images of the train split are held out as val."""
    name = layout_of(place, data.format)
    layout = LAYOUTS[name]
    splits = layout.splits(place)
    holds_out = split in ("train", "val") and "val" not in splits and "train" in splits
    source_split = "train" if holds_out else split
    _check_split(place, name, source_split)
    annotations, images = layout.read(place, source_split)
    records = with_remark(read_converted(annotations), f"read as {name}")
    if holds_out:
        records = part_of(records, split, share=data.val_share, seed=data.val_seed)
    return records, images


def _check_split(place: Path, layout: str, split: str) -> None:
    splits = LAYOUTS[layout].splits(place)
    if split not in splits:
        raise UserError(
            f"{place}: its {layout} layout has no {split} split (it has {first_few(splits) or 'none'}); add one"
        )


def _as_one(sources: Sequence[Source], data: DataConfig) -> Source:
    """The sources as one, with the classes that the config chooses."""
    files = renamed([file for file, _ in sources], data.rename)
    if data.classes is not None:
        files = of_classes(files, data.classes)
    if len(files) == 1:
        return files[0], sources[0][1]
    folders = [folder.resolve() for _, folder in sources]
    common = Path(os.path.commonpath(folders))
    parts: list[Part] = []
    for file, folder in zip(files, folders, strict=True):
        _ = checked(file)  # an error names this file and its own ids, and file names stay below this folder
        _ = missing_files(folder, [image.file_name or "" for image in file.images], file.source)
        parts.append(Part(file, "" if folder == common else folder.relative_to(common).as_posix()))
    return joined(parts), common
