"""Boxes on the pictures of a report, and the places of their tags."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from resdet.drawing.boxes import MOST_ROWS
from resdet.drawing.fonts import text_width
from resdet.drawing.tags import Rect, places

MOST_TAGS = 16  # per picture: more would hide it
TEXT, TAG = 12.0, 16.0  # sizes of the letters and of a tag, in units of the viewBox


@dataclass(frozen=True)
class Mark:
    """A box in units of the viewBox, its label, and the outline of its mask as an SVG path."""

    x: float
    y: float
    width: float
    height: float
    label: str
    color: str
    kind: str  # truth | found | missed | false | right
    score: float | None = None
    outline: str = ""
    remark: str = ""
    tag: Rect | None = None  # the place of its text; None if there is no room for it

    @property
    def text(self) -> str:
        """The text of the tag."""
        score = "" if self.score is None else f" {self.score:.2f}"
        return f"{self.label}{score}{f' {self.remark}' if self.remark else ''}"


def labelled(marks: Sequence[Mark], width: float, height: float) -> list[Mark]:
    """The same marks with places for their tags (`drawing.tags.places`), or below the picture for an object that fills
    it.

    Marks come in the order in which they are drawn, detections best first. Right ones need no tag, and of many the
    first of each kind have one.
    """
    named = _in_turns([(i, mark.kind) for i, mark in enumerate(marks) if mark.kind != "right"])[:MOST_TAGS]
    sizes = [(TAG, round(min(text_width(marks[i].text, TEXT) + 8, width), 1)) for i in named]
    rects = [(mark.x, mark.y, mark.x + mark.width, mark.y + mark.height) for mark in marks]
    boxes = [rects[i] for i in named]
    others = [rects[i] for i in sorted({*range(len(marks))} - {*named})]
    spots = places([*boxes, *others], sizes, width, height)
    right, bottom = 0.0, height + 2
    for i, size in enumerate(sizes):
        if spots[i] is not None or places(boxes[i : i + 1], [size], width, height) != [None]:
            continue
        if right + size[1] > width:
            right, bottom = 0.0, bottom + TAG + 2
        if bottom > height + MOST_ROWS * (TAG + 2):
            break
        spots[i] = (right, bottom, right + size[1], bottom + TAG)
        right += size[1] + 3
    tags = dict(zip(named, spots, strict=True))
    return [replace(mark, tag=tags.get(i)) for i, mark in enumerate(marks)]


def _in_turns(kinds: Sequence[tuple[int, str]]) -> list[int]:
    """Positions by their kinds: the first of each kind, then the second of each, and so on."""
    seen: Counter[str] = Counter()
    ranked: list[tuple[int, int]] = []
    for position, kind in kinds:
        ranked.append((seen[kind], position))
        seen[kind] += 1
    return [position for _, position in sorted(ranked)]
