"""Labelled image files: one folder per class, or one folder and a file of numbers, as ImageNet comes.

    train/n01440764/n01440764_10026.JPEG ...      val/ILSVRC2012_val_00000001.JPEG ...

Only names and labels are held in memory; images are read when their batch is made (data/batches/photos.py).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from resdet.coco.image_files import IMAGE_SUFFIXES, is_folder
from resdet.coco.packed_strings import PackedStrings
from resdet.data.sets.ilsvrc import ground_truth_file, read_val_labels
from resdet.errors import UserError, did_you_mean
from resdet.text import first_few


@dataclass(frozen=True)
class FilesReport:
    """The content of a data set, for the log and for data_report.json."""

    source: str
    images: int
    classes: int

    def summary(self) -> str:
        return f"{self.images} images, {self.classes} classes ({self.source})"

    def to_dict(self) -> dict[str, str | int]:
        return {"source": self.source, "images": self.images, "classes": self.classes}


@dataclass(frozen=True)
class LabelledFiles:
    """M image files below `root` and their classes. `annotations` is the path that says which class each has."""

    annotations: Path
    root: Path
    file_names: PackedStrings
    labels: Int64[np.ndarray, " M"]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> Path:
        return self.root / self.file_names[index]

    @property
    def category_ids(self) -> Int64[np.ndarray, " K"]:
        return np.arange(len(self.class_names))

    @property
    def report(self) -> FilesReport:
        return FilesReport(str(self.annotations), len(self), len(self.class_names))

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the names of classes and files, and of the labels; the pixels of a million files are not read."""
        digest = hashlib.sha256("\0".join(self.class_names).encode())
        digest.update(self.file_names.blob)
        digest.update(self.file_names.offsets.tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()

    def first(self, count: int) -> LabelledFiles:
        """`count` images that are spread evenly over the list, which is sorted by class."""
        chosen = np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(np.int64)
        return replace(self, file_names=self.file_names.take(chosen), labels=self.labels[chosen])

    def with_classes(self, class_names: Sequence[str]) -> LabelledFiles:
        """The same images with labels that count in another list of classes. Raises UserError for a class that the list
        lacks.
        """
        places = {name: label for label, name in enumerate(class_names)}
        unknown = [name for name in self.class_names if name not in places]
        if unknown:
            raise UserError(
                f"{self.annotations}: class {unknown[0]!r} is not known{did_you_mean(unknown[0], places)}; the classes"
                f" are {first_few(list(class_names))}"
            )
        moved = np.array([places[name] for name in self.class_names], np.int64)
        return replace(self, labels=moved[self.labels], class_names=tuple(class_names))


def imagenet(root: Path, split: str) -> LabelledFiles:
    """The classification images of ILSVRC 2012 to 2017, from `root`/ILSVRC in the layout of the later years' archives.

    The val images lie in one folder, with the devkit's numbers, or in a folder per class.
    """
    base = root / "ILSVRC"
    images = base / "Data" / "CLS-LOC" / split
    if split == "train" or any(is_folder for _, is_folder in listed(images)):
        return folders_of_classes(images)
    return flat_folder(images, ground_truth_file(base / "devkit" / "data"))


def folders_of_classes(root: Path) -> LabelledFiles:
    """The images in `root`/CLASS, for every folder CLASS there; the classes are sorted by name.

    Raises UserError for a folder that does not exist or has no folders, and for a class without an image.
    """
    classes = [name for name, is_folder in listed(root) if is_folder]
    if not classes:
        raise UserError(f"{root}: has no folder of a class; expected {root.name}/CLASS/IMAGE.jpg for each class")
    names: list[str] = []
    counts: list[int] = []
    for name in classes:
        images = image_names(root / name)
        if not images:
            raise UserError(f"{root / name}: the folder of a class has no image; add some, or remove the folder")
        names += [f"{name}/{image}" for image in images]
        counts.append(len(images))
    return LabelledFiles(
        root, root, PackedStrings.of(names), np.repeat(np.arange(len(classes)), counts), tuple(classes)
    )


def flat_folder(root: Path, ground_truth: Path) -> LabelledFiles:
    """The images of one folder, in the order of their names, whose classes the devkit's file of numbers gives.

    The classes are the synsets of the devkit beside the file, sorted. Raises UserError if they do not go together.
    """
    images = image_names(root)
    if not images:
        raise UserError(f"{root}: has no image; expected the devkit's flat folder of val images")
    synsets = read_val_labels(ground_truth, images, root)
    classes = sorted(set(synsets))
    places = {name: label for label, name in enumerate(classes)}
    labels = np.array([places[name] for name in synsets], np.int64)
    return LabelledFiles(ground_truth, root, PackedStrings.of(images), labels, tuple(classes))


def listed(folder: Path) -> list[tuple[str, bool]]:
    """The names in a folder, sorted, and whether each is a folder; hidden ones are left out."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry.name, is_folder(entry)) for entry in entries if entry.name[0] != ".")
    except (OSError, ValueError) as error:  # ValueError: a name that no file system accepts
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"{folder}: {reason}; give a folder of images (datasets/README.md shows the layouts)") from None


def image_names(folder: Path) -> list[str]:
    """The image files of a folder, sorted."""
    return [name for name, is_folder in listed(folder) if not is_folder and name.lower().endswith(IMAGE_SUFFIXES)]
