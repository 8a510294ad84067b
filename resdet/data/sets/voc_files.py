"""Finds the files of an entry of a Pascal VOC list: its xml file and its image.

An entry is the path of an image below JPEGImages without its ending. The folder and the ending of a file are never
guessed from other files: see `VocFiles.image`.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from resdet.coco.image_files import IMAGE_SUFFIXES, check_file_name, is_file
from resdet.data.sets.folders import folders_below
from resdet.errors import UserError
from resdet.files import read_text

REMEDY = "name FOLDER/ImageSets/Main/train.txt"
BY_ENTRY = "image found by the name of its xml file, for the file that the xml's filename names is not there"


@dataclass(frozen=True)
class _Folder:
    """The files of one folder with one of some endings, in upper or lower case; hidden files are ignored."""

    path: Path
    suffixes: tuple[str, ...]

    @cached_property
    def names(self) -> frozenset[str]:
        try:
            with os.scandir(self.path) as entries:
                files = [entry.name for entry in entries if entry.name[0] != "." and is_file(entry)]
        except (OSError, ValueError):  # ValueError: a name that no file system accepts
            return frozenset()
        return frozenset(name for name in files if PurePosixPath(name).suffix.lower() in self.suffixes)

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self.names):
            found[_composed(PurePosixPath(name).stem)].append(name)
        return found

    def of_stem(self, stem: str) -> list[str]:
        """The files with this stem: those spelled identically; otherwise those with a different encoding of accents, as
        after a copy from a Mac.
        """
        alike = self._by_stem.get(_composed(stem), [])
        return [name for name in alike if PurePosixPath(name).stem == stem] or alike

    def named(self, name: str) -> str | None:
        """The file with this name; otherwise the only file whose name differs in case or in the encoding of accents."""
        if name in self.names:
            return name
        wanted = _composed(name).casefold()
        close = [other for other in self.of_stem(PurePosixPath(name).stem) if _composed(other).casefold() == wanted]
        return close[0] if len(close) == 1 else None


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


@dataclass(frozen=True)
class VocFiles:
    """A list and the folders beside it, or a folder of xml files without a list (`list` is then that folder). File
    names are relative to the folder `images`.
    """

    list: Path
    root: Path
    images: Path
    xmls: Path  # the folder of the xml files
    pictures: Path | None = None  # the folder of the image files, if it is not JPEGImages
    _folders: dict[tuple[str, Path], _Folder] = field(default_factory=dict)

    @classmethod
    def below(cls, path: Path, images: Path) -> VocFiles:
        """Raises UserError if ROOT/ImageSets/Main/train.txt has no ROOT/Annotations, or if there is no list."""
        root = root_of(path)
        if not path.is_file():
            raise UserError(f"{path}: no such file; name FOLDER/ImageSets/Main/train.txt")
        if not (root / "Annotations").is_dir():
            raise UserError(
                f"{path}: is no split of a VOC data set, for {root / 'Annotations'} is missing; "
                "name FOLDER/ImageSets/Main/train.txt, or a COCO json file"
            )
        return cls(path, root, images, root / "Annotations")

    @classmethod
    def without_list(cls, xmls: Path, pictures: Path, images: Path) -> VocFiles:
        """All xml files of a folder, with the images in `pictures`, which is `images` or lies in it."""
        return cls(xmls, images, images, xmls, pictures)

    @property
    def folder(self) -> Path:
        """The folder of the image files: JPEGImages if it exists in `images`, otherwise `images` itself."""
        if self.pictures is not None:
            return self.pictures
        own = self.root / "JPEGImages"
        return own if own.absolute().is_relative_to(self.images.absolute()) else self.images

    @cached_property
    def entries(self) -> tuple[str, ...]:
        """The images of the list. Raises UserError for a list of another kind."""
        if self.list == self.xmls:
            return tuple(path.relative_to(self.xmls).with_suffix("").as_posix() for path in self.annotations())
        lines = [line.strip().replace("\\", "/") for line in read_text(self.list, REMEDY).splitlines()]
        for line in filter(None, lines):
            check_file_name(line, str(self.list))
        entries = [str(PurePosixPath(line)) for line in lines if line]
        if not entries:
            raise UserError(f"{self.list}: is empty; name one image a line, without its ending")
        if all(map(_OF_ONE_CLASS.search, entries)) and not any(map(self._xml_names, entries)):
            raise UserError(
                f"{self.list}: says of each image whether it shows one class ({entries[0]!r}); name a list of whole "
                "images such as train.txt"
            )
        repeated = [name for name, count in Counter(entries).items() if count > 1]
        if repeated:
            raise UserError(f"{self.list}: names {repeated[0]!r} twice (such names: {len(repeated)}); once is enough")
        return tuple(entries)

    def xml(self, entry: str) -> Path:
        """The xml file of an entry. Raises UserError if there is none, or more than one."""
        names = self._xml_names(entry)
        folder = (self.xmls / entry).parent
        if len(names) > 1:
            raise UserError(f"{folder}: {_both(names)} are both the annotations of {entry!r}; remove one")
        if not names:
            stem, suffix = os.path.splitext(entry)
            ending = suffix.lower() in IMAGE_SUFFIXES and self._xml_names(stem)
            remedy = "write it without its ending" if ending else "take it out of the list or add the file"
            name = PurePosixPath(entry).name
            raise UserError(f"{folder / name}.xml: No such file; {self.list} names {entry!r}; {remedy}")
        return folder / names[0]

    def image(self, entry: str, filename: str) -> tuple[str, bool]:
        """An entry's image, relative to `images`, and whether the xml's `filename` was ignored because it contradicts
        the entry.

        Images are the files with an image's ending in the entry's folder below JPEGImages. The image with the name of
        the entry is used; if several have it, `filename` decides. Only the last part of `filename` counts, because
        labelling tools write their own folders. If no image has the name of the entry, an existing image named by
        `filename` is used. If there is no such file either, the returned name is the expected one. Raises UserError
        that names both files if nothing decides between them, and for a `filename` that names another existing image.
        """
        path = PurePosixPath(entry)
        here = self._folder(self.folder / path.parent, IMAGE_SUFFIXES)
        said = PurePosixPath(filename.replace("\\", "/"))
        named, called = here.named(said.name), here.of_stem(path.name)
        if named is not None and named in called:
            return self._relative(path.parent, named), False
        if named and called:
            raise UserError(
                f"{self.xml(entry)}: filename is {filename[:200]!r}, and beside {named!r} there is {called[0]!r} in "
                f"{here.path}; correct the filename, or rename the xml file to its image"
            )
        if len(called) > 1:
            raise UserError(
                f"{here.path}: {_both(called)} may both be the image of {entry!r}; write the right one as filename in "
                f"{self.xml(entry)}, or remove the other"
            )
        if called:
            return self._relative(path.parent, called[0]), self._has_image_ending(said)
        if named:
            return self._relative(path.parent, named), False
        if below := self._named_below(said):
            return self._relative(said.parent, below), False
        return self._relative(path.parent, said.name if said.stem == path.name else f"{path.name}.jpg"), False

    def annotations(self) -> Iterator[Path]:
        """All xml files of the data set, including those of its other splits."""
        for folder, _ in folders_below(self.xmls):
            for name in sorted(self._folder(folder, (".xml",)).names):
                yield folder / name

    def fingerprint(self) -> str:
        """A hash that changes with every file that the conversion reads."""
        parts = [f"{self.list.absolute()} {self.list.stat().st_mtime_ns} {self.folder.absolute()}"]
        parts += [f"{path} {_stat(path)}" for path in self.annotations()]
        for parent in sorted({PurePosixPath(entry).parent for entry in self.entries}):
            names = self._folder(self.folder / parent, IMAGE_SUFFIXES).names
            parts.append(f"{parent} {sorted(names)}")
        return "\n".join(parts)

    def _relative(self, parent: PurePosixPath, name: str) -> str:
        return (self.folder.absolute().relative_to(self.images.absolute()) / parent / name).as_posix()

    def _named_below(self, said: PurePosixPath) -> str | None:
        """The image at the path that `filename` gives below the folder of images."""
        if said.is_absolute() or ".." in said.parts or said.parent == PurePosixPath():
            return None
        return self._folder(self.folder / said.parent, IMAGE_SUFFIXES).named(said.name)

    def _has_image_ending(self, said: PurePosixPath) -> bool:
        """Whether the name has an image's ending; a name without one, as some tools write it, is not compared."""
        return said.suffix.lower() in IMAGE_SUFFIXES

    def _xml_names(self, entry: str) -> list[str]:
        path = PurePosixPath(entry)
        return self._folder(self.xmls / path.parent, (".xml",)).of_stem(path.name)

    def _folder(self, path: Path, suffixes: tuple[str, ...]) -> _Folder:
        return self._folders.setdefault((suffixes[0], path), _Folder(path, suffixes))


_OF_ONE_CLASS = re.compile(r"\S\s+(-1|0|1)$")


def root_of(path: Path) -> Path:
    """ROOT of ROOT/ImageSets/Main/train.txt."""
    return path.absolute().parent.parent.parent


def _both(names: list[str]) -> str:
    return f"{names[0]!r} and {names[1]!r}"


def _stat(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns
