"""Reads the development kit of ILSVRC: the synsets by number, and the classes of the flat folder of val images.

    devkit/data/ILSVRC2015_clsloc_validation_ground_truth.txt (2012: ILSVRC2012_validation_ground_truth.txt)
    devkit/data/map_clsloc.txt (2012: meta.mat)

The classification and localization images are those of 2012 in every later year.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from resdet.errors import UserError

SAME_SINCE = 2012  # the year whose classes and images all later years have
CLSLOC, DET = "CLS-LOC", "DET"
MAPS = {CLSLOC: ("map_clsloc.txt", "meta_clsloc.mat", "meta.mat"), DET: ("map_det.txt",)}
SYNSET = re.compile(r"n\d{8}")
YEAR = re.compile(r"ILSVRC(20\d\d)")
LARGEST = 64 * 2**20  # bytes; the devkit's largest file has 2


def read_val_labels(ground_truth: Path, images: Sequence[str], folder: Path) -> list[str]:
    """The synset of each of the sorted val images, by the devkit's file of one number per image.

    Raises UserError if the file is of another year, has another count of lines than there are images, or a number
    without a synset, and if the numbers in the images' names have a gap, which would shift every label after it.
    """
    _check_year(ground_truth)
    lines = lines_of(ground_truth)
    synsets = read_synsets(ground_truth.parent)
    if len(lines) != len(images):
        raise UserError(
            f"{ground_truth}: has {len(lines)} lines, and {folder} has {len(images)} images; one belongs to each"
        )
    _check_names(images, folder)
    labels = []
    for row, line in enumerate(lines, start=1):
        number = int(line) if line.isascii() and line.isdigit() and len(line) < 10 else -1
        if number not in synsets:
            raise UserError(
                f"{ground_truth}: line {row} is {line[:40]!r}, which is no number of a class of"
                f" {synsets_file(ground_truth.parent)} ({min(synsets)} to {max(synsets)}); take both from one devkit"
            )
        labels.append(synsets[number])
    return labels


def ground_truth_file(folder: Path) -> Path:
    """The one file of numbers for classification in the folder `devkit/data`."""
    found = sorted(path for path in folder.glob("*_validation_ground_truth.txt") if "_det_" not in path.name)
    if len(found) != 1:
        raise UserError(
            f"{folder}: has {len(found)} files ..._validation_ground_truth.txt, and the labels of the val images need"
            " one; put the devkit there (datasets/README.md), or the val images into a folder per class"
        )
    return found[0]


def read_synsets(folder: Path, track: str = CLSLOC) -> dict[int, str]:
    """The number of each class in the devkit and its synset (n01440764), from MAPS in the folder `devkit/data`.

    Raises UserError for a file that is absent, of another year or unreadable.
    """
    path = synsets_file(folder, track)
    pairs = _from_text(path) if path.suffix == ".txt" else _from_matlab(path)
    for number, synset in pairs:
        if not SYNSET.fullmatch(synset):
            raise UserError(f"{path}: class {number} is {synset[:40]!r}, which is no synset such as n01440764")
    synsets = dict(pairs)
    if not pairs or len(synsets) != len(pairs) or len(set(synsets.values())) != len(pairs):
        raise UserError(f"{path}: lists no class, or one twice; restore the devkit's own")
    return synsets


def synsets_file(folder: Path, track: str = CLSLOC) -> Path:
    """The file that says the synsets. Raises UserError if there is none."""
    for name in MAPS[track]:
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"{folder}: has none of {', '.join(MAPS[track])}, which say the synsets of the numbers; add the devkit's"
    )


def _check_year(path: Path) -> None:
    if (found := YEAR.search(path.name)) and int(found[1]) < SAME_SINCE:
        raise UserError(f"{path}: is of {found[1]}, whose classes and images differ; take the devkit of 2012 or later")


def _check_names(images: Sequence[str], folder: Path) -> None:
    """Names that end in a number must count from 1 without a gap."""
    numbers = [re.search(r"(\d+)\.\w+$", name) for name in images]
    for expected, (name, found) in enumerate(zip(images, numbers, strict=True), start=1):
        if all(numbers) and found is not None and int(found[1]) != expected:
            raise UserError(
                f"{folder}: {name!r} is image {expected} of the folder by its place and {int(found[1])} by its name;"
                " one before it is missing or too many, so that the labels would not fit"
            )


def lines_of(path: Path) -> list[str]:
    """The lines of a small text file, without the empty ones at its end."""
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path}: larger than {LARGEST} bytes; that is no file of the devkit")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give the devkit's file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is no text file; give the devkit's file") from None
    return [line.strip() for line in text.rstrip().split("\n")]


def _from_text(path: Path) -> list[tuple[int, str]]:
    """Lines of a synset, its number and its name: `n02119789 1 kit_fox`."""
    pairs = []
    for row, line in enumerate(lines_of(path), start=1):
        words = line.split()
        if len(words) < 2 or not re.fullmatch(r"\d{1,9}", words[1], re.ASCII):
            raise UserError(
                f"{path}: line {row} is {line[:40]!r}; expected a synset and its number (n02119789 1 kit_fox)"
            )
        pairs.append((int(words[1]), words[0]))
    return pairs


def _from_matlab(path: Path) -> list[tuple[int, str]]:
    """The rows of `synsets` without children: those with children are nodes of WordNet above the classes."""
    from scipy.io import loadmat  # slow to import, and needed for this file only

    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path}: larger than {LARGEST} bytes; that is no file of the devkit")
        table = loadmat(path, squeeze_me=True, variable_names=["synsets"])["synsets"]
        year = next(found[1] for name in table.dtype.names if (found := YEAR.match(name)))
        rows = table[table["num_children"] == 0]
        pairs = [(int(row[f"ILSVRC{year}_ID"]), str(row["WNID"])) for row in rows]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; give the devkit's file") from None
    # what loadmat and the look-ups raise for a file that is damaged or holds something else
    except (ValueError, TypeError, KeyError, IndexError, StopIteration, NotImplementedError) as error:
        raise UserError(f"{path}: is not the devkit's table of synsets ({type(error).__name__}); restore it") from None
    if int(year) < SAME_SINCE:
        raise UserError(f"{path}: is of {year}, whose classes and images differ; take the devkit of 2012 or later")
    return pairs
