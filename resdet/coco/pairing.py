"""Finds the ground-truth image of each result, by file name if both sides have one.

Image ids alone are then not reliable: a detector that predicts a folder numbers its files, and the annotation file may
number them in another order.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int64

from resdet.errors import UserError

BY_ID = "or take out the field 'file_name' to go by image_id"


@dataclass(frozen=True)
class NamedImages:
    """The images of a ground truth, each with an id and a file name."""

    source: str
    ids: Int64[np.ndarray, " I"]
    names: Sequence[str]

    @cached_property
    def _by_base(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = defaultdict(list)
        for position, name in enumerate(self.names):
            if parts := _parts(name):
                found[parts[-1]].append(position)
        return found

    def candidates(self, name: str) -> list[int]:
        """The positions of the images that a file name can refer to.

        These are the images with exactly that name; otherwise those with the longest common end, if one path is the end
        of the other; otherwise those with the same name in any folder. Accents may be encoded in either way, and
        folders may be separated by \\ or /.
        """
        parts = _parts(name)
        same_base = self._by_base.get(parts[-1], []) if parts else []
        if exact := [position for position in same_base if self.names[position] == name]:
            return exact
        common = {position: _common_end(parts, _parts(self.names[position])) for position in same_base}
        longest = max(common.values(), default=0)
        return [position for position, length in common.items() if length == longest]


def paired_ids(
    image_ids: Int64[np.ndarray, " n"], file_names: Sequence[str], images: NamedImages, where: Callable[[int], str]
) -> Int64[np.ndarray, " n"]:
    """The ground truth's image id of each of n results, by their file names.

    `where(index)` is the name of a result for a message. Raises UserError for a name that the ground truth does not
    have, a name that fits several of its images, an image id with two names, and two images that are paired with the
    same one.
    """
    first: dict[tuple[int, str], int] = {}
    rows = [first.setdefault(key, row) for row, key in enumerate(zip(image_ids.tolist(), file_names, strict=True))]
    named: dict[int, int] = {}
    taken: dict[int, int] = {}
    paired: dict[int, int] = {}
    for (image_id, name), row in first.items():
        if named.setdefault(image_id, row) != row:
            other = file_names[named[image_id]]
            raise UserError(
                f"{where(row)}: file_name {name[:200]!r}, but image_id {image_id} is {other[:200]!r} before; "
                f"give every image an id of its own, {BY_ID}"
            )
        position = _position(image_id, name, images, where(row))
        if taken.setdefault(position, row) != row:
            other = file_names[taken[position]]
            raise UserError(
                f"{where(row)}: file_name {name[:200]!r} and {other[:200]!r} of image_id {image_ids[taken[position]]} "
                f"are both {images.names[position][:200]!r} of {images.source}; score one of them, {BY_ID}"
            )
        paired[row] = int(images.ids[position])
    return np.array([paired[row] for row in rows], np.int64)


def _position(image_id: int, name: str, images: NamedImages, where: str) -> int:
    found = images.candidates(name)
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(
            f"{where}: file_name {name[:200]!r} is none of {images.source}; score the images of that file alone, "
            f"{BY_ID}"
        )
    names = {images.names[position] for position in found}
    own = [position for position in found if images.ids[position] == image_id]
    if len(names) == 1 and own:  # one file that is listed several times
        return own[0]
    one, other = (images.names[position][:200] for position in found[:2])
    raise UserError(
        f"{where}: file_name {name[:200]!r} may be {one!r} or {other!r} of {images.source}; write more of its path, "
        f"{BY_ID}"
    )


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"[/\\]", unicodedata.normalize("NFC", name)) if part not in ("", ".")]


def _common_end(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the shorter path if the longer path ends with it; otherwise 0."""
    length = min(len(one), len(other))
    return length if one[-length:] == other[-length:] else 0
