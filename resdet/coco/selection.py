"""Chooses images and classes of annotation files, and joins several files: before the verdicts, for every format."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from msgspec.structs import replace

from resdet.coco.annotation_file import AnnotationFile
from resdet.coco.class_names import class_names, collision_key
from resdet.coco.records import CategoryRecord, ImageRecord, Records
from resdet.coco.report import Note
from resdet.errors import UserError, did_you_mean
from resdet.text import first_few

OTHER_CLASS = "class not in data.classes"


def with_images(file: AnnotationFile, wanted: Callable[[ImageRecord], bool]) -> AnnotationFile:
    """The wanted images with their annotations. An annotation of no image stays with the images that are first."""
    images = [image for image in file.images if wanted(image)]
    left_out = {image.id for image in file.images} - {image.id for image in images}
    rows = np.flatnonzero(~np.isin(file.annotations.image_ids, np.array(list(left_out), np.int64)))
    return replace(file, images=images, annotations=file.annotations.take(rows))


def with_remark(file: AnnotationFile, remark: str) -> AnnotationFile:
    return replace(file, remarks=[*file.remarks, remark])


def names_of(file: AnnotationFile) -> dict[int, str]:
    """The classes of a file by their category id, with the names that training shows. Raises UserError for two classes
    of one name.
    """
    ordered = sorted(file.categories, key=lambda category: category.id)
    ids = [category.id for category in ordered]
    return dict(zip(ids, class_names(ids, [category.name for category in ordered], file.source), strict=True))


def renamed(files: Sequence[AnnotationFile], names: Mapping[str, str]) -> list[AnnotationFile]:
    """The files with other class names; classes that then have one name become one, with the lowest of their ids.

    Raises UserError for a name that is a class of none of the files.
    """
    if not names:
        return list(files)
    known = {name for file in files for name in names_of(file).values()}
    for old in names:
        if old not in known:
            raise UserError(f"data.rename: {old!r} is no class of {_sources(files)}{did_you_mean(old, sorted(known))}")
    return [_renamed(file, names) for file in files]


def _renamed(file: AnnotationFile, names: Mapping[str, str]) -> AnnotationFile:
    first: dict[str, int] = {}
    new_id: dict[int, int] = {}
    for number, name in names_of(file).items():
        new_id[number] = first.setdefault(names.get(name, name), number)
    return replace(
        file,
        categories=_categories(file, first),
        annotations=_relabelled(file.annotations, new_id),
        images=[_looked_for(image, new_id) for image in file.images],
    )


def of_classes(files: Sequence[AnnotationFile], classes: Sequence[str]) -> list[AnnotationFile]:
    """The files with the chosen classes alone; annotations of other classes are skipped and counted.

    Raises UserError for a class that none of the files has.
    """
    known = {name for file in files for name in names_of(file).values()}
    for name in classes:
        if name not in known:
            raise UserError(
                f"data.classes: {name!r} is no class of {_sources(files)}{did_you_mean(name, sorted(known))}"
            )
    return [_of_classes(file, set(classes)) for file in files]


def _of_classes(file: AnnotationFile, classes: set[str]) -> AnnotationFile:
    names = names_of(file)
    dropped = {number for number, name in names.items() if name not in classes}
    other = np.isin(file.annotations.category_ids, np.array(list(dropped), np.int64))
    skipped = {OTHER_CLASS: Note.of(file.annotations.ids[other])} if other.any() else {}
    return replace(
        file,
        categories=_categories(file, {name: number for number, name in names.items() if number not in dropped}),
        annotations=file.annotations.take(np.flatnonzero(~other)),
        skipped=file.skipped | skipped,
    )


@dataclass(frozen=True)
class Part:
    """A file to join, and the path from the common folder of images to its own ("" if that is the same)."""

    file: AnnotationFile
    prefix: str


def joined(parts: Sequence[Part]) -> AnnotationFile:
    """One file of several, whose classes are joined by their names.

    A class has the id of the first file that has it, or the next free one where another class has that id; images and
    annotations of later files get new ids. Raises UserError for names that differ only in case, blanks or the encoding
    of accents, and for files in which nothing is left.
    """
    numbers = _joined_classes([part.file for part in parts])
    images: list[ImageRecord] = []
    annotations: list[Records] = []
    mended: dict[str, Note] = {}
    skipped: dict[str, Note] = {}
    unreadable: dict[str, str] = {}
    for part in parts:
        file, new_id = part.file, {number: numbers[name] for number, name in names_of(part.file).items()}
        image_shift = _shift([image.id for image in images], [image.id for image in file.images])
        shift = _shift([number for each in annotations for number in each.ids.tolist()], file.annotations.ids.tolist())
        images += [
            replace(
                _looked_for(image, new_id), id=image.id + image_shift, file_name=_below(part.prefix, image.file_name)
            )
            for image in file.images
        ]
        own = _relabelled(file.annotations, new_id)
        annotations.append(dataclasses.replace(own, ids=own.ids + shift, image_ids=own.image_ids + image_shift))
        _add(mended, file.mended, shift)
        _add(skipped, file.skipped, shift)
        unreadable |= {f"{part.prefix}/{name}": reason for name, reason in file.unreadable.items()}
    return AnnotationFile(
        source=_sources([part.file for part in parts]),
        images=images,
        annotations=Records.joined(annotations),
        categories=_categories(parts[0].file, numbers),
        converted=[],
        mended=mended,
        skipped=skipped,
        unreadable=unreadable,
        remarks=[remark for part in parts for remark in part.file.remarks] + _partial_classes(parts),
    )


def _joined_classes(files: Sequence[AnnotationFile]) -> dict[str, int]:
    numbers: dict[str, int] = {}
    owners: dict[str, tuple[str, str]] = {}
    for file in files:
        for number, name in names_of(file).items():
            other, source = owners.setdefault(collision_key(name), (name, file.source))
            if other != name:
                raise UserError(
                    f"{file.source}: class {name!r} is {other!r} in {source}; say which with "
                    f"data.rename={{{name}: {other}}}"
                )
            if name not in numbers:
                taken = set(numbers.values())
                numbers[name] = number if number not in taken else max(taken) + 1
    return numbers


def _partial_classes(parts: Sequence[Part]) -> list[str]:
    """A remark on each file that lacks classes of the others: objects of these may be there, unmarked."""
    every = {name for part in parts for name in names_of(part.file).values()}
    remarks: list[str] = []
    for part in parts:
        lacking = sorted(every - set(names_of(part.file).values()))
        if lacking:
            remarks.append(f"{part.file.source} does not mark {first_few(lacking)}, which count as absent there")
    return remarks


def _shift(taken: Sequence[int], ids: Sequence[int]) -> int:
    """0, or what is added to the ids so that they are above those that are taken."""
    if not ids or not taken or set(taken).isdisjoint(ids):
        return 0
    return max(taken) + 1 - min(ids)


def _add(total: dict[str, Note], notes: Mapping[str, Note], shift: int) -> None:
    for reason, note in notes.items():
        old = total.get(reason, Note(0, []))
        examples = [*old.examples, *(number + shift for number in note.examples)]
        total[reason] = Note.of_count(old.count + note.count, examples)


def _relabelled(records: Records, new_id: Mapping[int, int]) -> Records:
    """An unknown category id stays, so that the reader refuses it."""
    known, place = np.unique(records.category_ids, return_inverse=True)
    changed = np.array([new_id.get(number, number) for number in known.tolist()], np.int64)
    return dataclasses.replace(records, category_ids=changed[place])


def _looked_for(image: ImageRecord, new_id: Mapping[int, int]) -> ImageRecord:
    """An image of LVIS for new category ids: of classes that are one now, absent is what all of them are, and not
    marked exhaustively what one of them is.
    """
    if image.neg_category_ids is None:
        return image
    absent, partial = set(image.neg_category_ids), set(image.not_exhaustive_category_ids or ())
    present = {new for old, new in new_id.items() if old not in absent}
    return replace(
        image,
        neg_category_ids=sorted({new_id[old] for old in absent if old in new_id} - present),
        not_exhaustive_category_ids=sorted({new_id[old] for old in partial if old in new_id}),
    )


def _categories(file: AnnotationFile, numbers: Mapping[str, int]) -> list[CategoryRecord]:
    """Classes by their names; one that has the id that it has in the file keeps LVIS's frequency."""
    frequency = {category.id: category.frequency for category in file.categories}
    return [CategoryRecord(id=number, name=name, frequency=frequency.get(number)) for name, number in numbers.items()]


def _below(prefix: str, name: str | None) -> str | None:
    return name if name is None or not prefix else (PurePosixPath(prefix) / name).as_posix()


def _sources(files: Sequence[AnnotationFile]) -> str:
    return " + ".join(file.source for file in files)
