"""The rule for class names that annotation files, figures and checkpoints share, and the names of Pascal VOC."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

from resdet.errors import UserError

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def class_names(ids: Sequence[int], names: Sequence[str | None], source: str) -> tuple[str, ...]:
    """A name for each category, without blanks at its ends and different enough from all other names.

    Two names collide if they differ only in case, blanks or the encoding of accents; the category id is then appended
    to each; a category without a name becomes "category (id 5)". Raises UserError if names still collide.
    """
    plain = [(name or "").strip() for name in names]
    uses = Counter(map(collision_key, plain))
    chosen = tuple(
        name if name and uses[collision_key(name)] == 1 else f"{name or 'category'} (id {number})"
        for name, number in zip(plain, ids, strict=True)
    )
    first: dict[str, int] = {}
    for position, name in enumerate(chosen):
        other = first.setdefault(collision_key(name), position)
        if other != position:
            raise UserError(
                f"{source}: categories {ids[other]} and {ids[position]} are both named {name[:100]!r}; "
                "give each category a name of its own"
            )
    return chosen


def collision_key(name: str) -> str:
    """A key that is equal for two names which a reader could confuse."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def match_classes(wanted: Sequence[str], known: Sequence[str]) -> list[int | None]:
    """The position of each wanted name among the known ones, None if it is missing.

    An identical name has priority over one that differs only in case, blanks or the encoding of accents.
    """
    exact = {name: position for position, name in enumerate(known)}
    rest = [name for name in known if name not in set(wanted)]
    unique = _unique_keys(rest).keys() & _unique_keys([name for name in wanted if name not in exact]).keys()
    alike = {key: exact[name] for key, name in _unique_keys(rest).items() if key in unique}
    return [exact.get(name, alike.get(collision_key(name))) for name in wanted]


def _unique_keys(names: Sequence[str]) -> dict[str, str]:
    """The names that collide with no other name of the list, by their keys."""
    uses = Counter(map(collision_key, names))
    return {collision_key(name): name for name in names if uses[collision_key(name)] == 1}
