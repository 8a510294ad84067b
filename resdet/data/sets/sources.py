"""One or several annotation files as the content of one data set, with the classes that a config chooses."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from resdet.coco.annotation_file import AnnotationFile
from resdet.coco.image_files import missing_files
from resdet.coco.reader import Annotations, checked
from resdet.coco.selection import Part, joined, of_classes, renamed, with_remark
from resdet.config import DataConfig
from resdet.data.sets.coco import CocoDataset, dataset_of
from resdet.data.sets.index import indexed
from resdet.errors import UserError


@dataclass(frozen=True)
class Source:
    """An annotation file and the folder that its file names are relative to. `read` gives its records, and `choice` is
    what decides about them beside the file. `indexed`: they may come from an index (sets/index.py).
    """

    annotations: Path
    images: Path
    read: Callable[[], AnnotationFile]
    choice: Sequence[object] = ()
    indexed: bool = True


def content_of_sources(sources: Sequence[Source], data: DataConfig) -> tuple[Annotations, Path]:
    """The sources as one, with the classes that the config chooses, and the folder that all file names are relative
    to. Raises UserError for anything in them that cannot be meant.
    """
    folders = [source.images.resolve() for source in sources]
    alone = len(sources) == 1
    common = sources[0].images if alone else Path(os.path.commonpath(folders))

    def make() -> Annotations:
        files = renamed([source.read() for source in sources], data.rename)
        if data.classes is not None:
            files = of_classes(files, data.classes)
        return content_of(files[0] if alone else _joined(files, folders, common))

    if not data.index or not all(source.indexed for source in sources):
        return make(), common
    choice = [[source.choice for source in sources], list(data.rename.items()), data.classes]
    choice += [] if alone else [list(map(str, folders))]
    return indexed([source.annotations for source in sources], choice, make), common


def _joined(files: Sequence[AnnotationFile], folders: Sequence[Path], common: Path) -> AnnotationFile:
    parts: list[Part] = []
    for file, folder in zip(files, folders, strict=True):
        _ = checked(file)  # an error names this file and its own ids, and file names stay below this folder
        _ = missing_files(folder, [image.file_name or "" for image in file.images], file.source)
        parts.append(Part(file, "" if folder == common else folder.relative_to(common).as_posix()))
    return joined(parts)


def content_of(records: AnnotationFile) -> Annotations:
    """The records with their verdicts. Raises UserError for anything in them that cannot be meant."""
    if records.unreadable:
        first = next(iter(records.unreadable))
        remark = f"{len(records.unreadable)} image files that cannot be read are left out (first: {first[:200]!r})"
        records = with_remark(records, remark)
    return checked(records)


def set_of(
    content: Annotations, images: Path, *, require_objects: bool = False, max_missing_fraction: float = 0.0
) -> CocoDataset:
    """The data set of such content. Image files that a conversion could not read count as missing ones."""
    check_unreadable(content, max_missing_fraction)
    return dataset_of(content, images, require_objects=require_objects, max_missing_fraction=max_missing_fraction)


def check_unreadable(content: Annotations, max_missing_fraction: float) -> None:
    """Raises UserError if more image files than permitted cannot be read and were left out."""
    count, reasons = len(content.image_ids) + len(content.unreadable), list(content.unreadable.values())
    if len(reasons) > max_missing_fraction * count:
        more = f" ({len(reasons)} such images of {count})" if len(reasons) > 1 else ""
        raise UserError(f"{reasons[0]}{more}; or allow some with data.on_bad_image=skip")
