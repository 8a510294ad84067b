"""Puts together the content of the COCO file that a conversion writes, and names the first of many faults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resdet.data.images.decode import ImageError, image_size
from resdet.errors import UserError


@dataclass
class Content:
    """Images and objects get their ids in the order in which they are added, from 1 on. `categories` are the classes by
    their id.
    """

    source: str  # names the converted files for people
    categories: Mapping[int, str]
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    mended: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    unreadable: dict[str, str] = field(default_factory=dict)

    def image(self, file_name: str, height: int, width: int) -> int:
        """Returns the id of the new image."""
        self.images.append({"id": len(self.images) + 1, "file_name": file_name, "height": height, "width": width})
        return len(self.images)

    def size_of(self, folder: Path, file_name: str) -> tuple[int, int] | None:
        """The (height, width) of the upright image, from the header of its file; None, and noted, if there is none."""
        try:
            return image_size(folder / file_name)
        except ImageError as error:
            self.unreadable[file_name] = str(error)
            return None

    def object(self, image: int, category: int, box: Sequence[float], **more: Any) -> None:
        """An object with its box (x, y, width, height) in pixels; `more` are further fields of a COCO annotation."""
        identity = {"id": len(self.annotations) + 1, "image_id": image, "category_id": category}
        self.annotations.append({**identity, "bbox": list(box), "area": box[2] * box[3], "iscrowd": 0, **more})

    def as_coco(self) -> dict[str, Any]:
        """The content of the file. Raises UserError if there is no image in it."""
        if not self.images and self.unreadable:
            raise UserError(f"{self.source}: no image can be read; the first: {next(iter(self.unreadable.values()))}")
        if not self.images:
            raise UserError(f"{self.source}: has no image; there is nothing to read")
        return {
            "info": {
                "description": f"converted from {self.source}",
                "source": self.source,
                "mended": _notes(self.mended),
                "skipped": _notes(self.skipped),
                "unreadable": self.unreadable,
            },
            "images": self.images,
            "annotations": self.annotations,
            "categories": [{"id": number, "name": name} for number, name in self.categories.items()],
        }


def _notes(counts: Counter[str]) -> dict[str, Any]:
    return {reason: {"count": count, "examples": []} for reason, count in counts.items()}


class Faults:
    """The lines of text files that cannot be meant. The first is named, and the others are counted."""

    def __init__(self) -> None:
        self._first, self._count = "", 0

    def add(self, problem: str) -> None:
        self._first, self._count = self._first or problem, self._count + 1

    def check(self, remedy: str) -> None:
        """Raises UserError if there is a fault."""
        if self._count:
            more = f" ({self._count} such lines)" if self._count > 1 else ""
            raise UserError(f"{self._first}{more}; {remedy}")


def number(text: str, accept: Callable[[float], bool]) -> float | None:
    """The finite number in a text, None if it is none or not accepted."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < float("inf") and accept(value) else None
