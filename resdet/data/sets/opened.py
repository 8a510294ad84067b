"""Opens a split of a config: the folders of data.path, or the files of data.train and data.val, as one data set."""

from __future__ import annotations

from pathlib import Path

from resdet.coco.annotation_file import AnnotationFile
from resdet.coco.reader import Annotations
from resdet.coco.selection import with_remark
from resdet.config import DataConfig
from resdet.data.sets.cache import read_converted
from resdet.data.sets.coco import CocoDataset
from resdet.data.sets.formats import file_source
from resdet.data.sets.held_out import part_of
from resdet.data.sets.kept_empty import keep_empty
from resdet.data.sets.layouts import AUTO, LAYOUTS, layout_of
from resdet.data.sets.remote_shards import fetched, is_remote
from resdet.data.sets.sources import Source, content_of_sources, set_of
from resdet.data.sets.splits import split_files
from resdet.errors import UserError
from resdet.text import first_few


def open_set(data: DataConfig, split: str) -> CocoDataset:
    """The checked data set of `split`, "train" or "val", with the classes and images that the config chooses.

    Raises UserError for a folder or file that does not fit, and for a training set without an object.
    """
    tolerated = data.max_bad_fraction if data.on_bad_image == "skip" else 0.0
    content, images = content_of_sources(_sources(data, split), data)
    training = split == "train"
    dataset = set_of(content, images, require_objects=training, max_missing_fraction=tolerated)
    return keep_empty(dataset, data.empty_images, data.val_seed) if training else dataset


def open_folder(place: Path, split: str, *, whole: bool = False, format: str = AUTO) -> CocoDataset:
    """The data set of a folder (or of its data.yaml), as training opens it; `whole`: as the folder has it, so that
    nothing is held out as val. `format` is that of data.format.
    """
    data = DataConfig(format=format)
    return set_of(*content_of_sources([_of_folder(place, data, split, whole=whole)], data))


def scored_content(place: Path, data: DataConfig | None = None) -> Annotations:
    """What is to be found: a file of any format, or the val split of a folder, with what `data` chooses of it."""
    chosen = DataConfig() if data is None else data
    return content_of_sources(
        [_of_folder(place, chosen, "val") if is_folder(place) else file_source(place, None)], chosen
    )[0]


def is_folder(place: Path) -> bool:
    """Whether a path names a data set by its folder, or by the data.yaml in it, and not by an annotation file."""
    return place.is_dir() or place.suffix in (".yaml", ".yml", ".data")


def _sources(data: DataConfig, split: str) -> list[Source]:
    if data.path is None:
        _check_without_path(data)
        return [file_source(*split_files(data, split))]
    _check_one_way(data)
    return [_of_folder(local(path), data, split) for path in data.path]


def local(path: str) -> Path:
    """The folder of a data set; one that is given by its address is fetched into the cache."""
    return fetched(path) if is_remote(path) else Path(path)


def _check_without_path(data: DataConfig) -> None:
    for name in ("format", "val_share"):
        value = getattr(data, name)
        if value != getattr(DataConfig(), name):
            raise UserError(
                f"data.{name}={value} is about the folders of data.path, which is not given; give data.path, or leave "
                f"data.{name} out"
            )


def _check_one_way(data: DataConfig) -> None:
    for split, files in (("train", data.train), ("val", data.val)):
        if files.annotations or files.images:
            raise UserError(
                f"data.path and data.{split}.annotations (or .images) are both given; take one out: data.path=null, or "
                f"data.{split}.annotations=null data.{split}.images=null"
            )


def _of_folder(place: Path, data: DataConfig, split: str, *, whole: bool = False) -> Source:
    """The records of a folder's split. Without a val split, images of the train split are held out as val."""
    name = layout_of(place, data.format)
    layout = LAYOUTS[name]
    splits = layout.splits(place)
    holds_out = not whole and split in ("train", "val") and "val" not in splits and "train" in splits
    source_split = "train" if holds_out else split
    if source_split not in splits:
        raise UserError(
            f"{place}: its {name} layout has no {split} split (it has {first_few(splits) or 'none'}); add one"
        )
    annotations, images = layout.read(place, source_split)

    def read() -> AnnotationFile:
        records = with_remark(read_converted(annotations), f"read as {name}")
        return part_of(records, split, share=data.val_share, seed=data.val_seed) if holds_out else records

    return Source(annotations, images, read, (name, *((split, data.val_share, data.val_seed) if holds_out else ())))
