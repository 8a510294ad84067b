"""Recognizes the format of a folder by its layout: a literal table of layouts, one row each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from resdet.data.sets import coco_folder, csv_table, cvat, shard_folder, voc_folder, yolo
from resdet.errors import UserError, row_of

AUTO = "auto"


class Layout(NamedTuple):
    """A format of folders. `recognizes` looks at names alone. `splits` are those that the folder has, some of "train",
    "val" and "test". `read` gives a split's COCO file (in the cache, for another format) and the folder that the file
    names in it are relative to. `looks_for` says in words what `recognizes` looks for.
    """

    looks_for: str
    recognizes: Callable[[Path], bool]
    splits: Callable[[Path], Sequence[str]]
    read: Callable[[Path, str], tuple[Path, Path]]


LAYOUTS = {
    "coco": Layout(coco_folder.LOOKS_FOR, coco_folder.recognizes, coco_folder.splits, coco_folder.read),
    "yolo": Layout(yolo.LOOKS_FOR, yolo.recognizes, yolo.splits, yolo.read),
    "voc": Layout(voc_folder.LOOKS_FOR, voc_folder.recognizes, voc_folder.splits, voc_folder.read),
    "cvat": Layout(cvat.LOOKS_FOR, cvat.recognizes, cvat.splits, cvat.read),
    "csv": Layout(csv_table.LOOKS_FOR, csv_table.recognizes, csv_table.splits, csv_table.read),
    "shards": Layout(shard_folder.LOOKS_FOR, shard_folder.recognizes, shard_folder.splits, shard_folder.read),
}


def layout_of(place: Path, wanted: str = AUTO) -> str:
    """The name of a folder's layout. `wanted` is that name, or "auto" for the only layout that recognizes the folder.

    Raises UserError for a folder that is not there, that no layout recognizes, or that several do.
    """
    if not place.exists():
        raise UserError(f"{place}: no such folder; data.path names the folder of a data set")
    if wanted != AUTO:
        layout = row_of(LAYOUTS, wanted, "data.format")
        if not layout.recognizes(place):
            raise UserError(f"{place}: data.format={wanted}, and there is no {layout.looks_for}")
        return wanted
    names = [name for name, layout in LAYOUTS.items() if layout.recognizes(place)]
    if not names:
        looked = "; ".join(f"{name}: {layout.looks_for}" for name, layout in LAYOUTS.items())
        raise UserError(f"{place}: of no known format; looked for {looked}")
    if len(names) > 1:
        seen = " and ".join(f"{name} ({LAYOUTS[name].looks_for})" for name in names)
        raise UserError(
            f"{place}: may be {seen}; choose with data.format={names[0]} (resdet new: --format "
            f"{names[0]}; check-data, convert-data: --from {names[0]})"
        )
    return names[0]
