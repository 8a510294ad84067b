"""One folder of predictions from several processes: each writes its own folder, and the first process joins them."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resdet.engine.run_folder import PREDICTIONS
from resdet.files import readable_json, replace_file, writing
from resdet.predict.extras import EXTRAS, csv_lines
from resdet.predict.prediction_folder import FRAME_IDS, IMAGES, TABLES, clear_folder


def part_of(folder: Path, rank: int) -> Path:
    """The hidden folder beside `folder` that process `rank` writes; it stays there if the prediction is interrupted."""
    return folder.with_name(f".{folder.name}.part-{rank}")


def join_parts(folder: Path, processes: int) -> list[dict[str, Any]]:
    """Moves the files of all parts into the folder, joins their lists in the order of the images, and removes the
    parts. Returns the entries of the images that were skipped.

    Raises UserError if the folder holds something else, or cannot be written.
    """
    parts = [part_of(folder, rank) for rank in range(processes)]
    with writing(folder):
        clear_folder(folder)
        contents = [json.loads((part / IMAGES).read_bytes()) for part in parts]
        skipped = _in_order([entry for content in contents for entry in content["skipped"]], "id")
        images = _in_order([entry for content in contents for entry in content["images"]], "id")
        joined = {"images": images, "skipped": skipped, "categories": contents[0]["categories"]}
        replace_file(folder / IMAGES, readable_json(joined))
        results = [result for part in parts for result in json.loads((part / PREDICTIONS).read_bytes())]
        lines = ",\n".join(map(json.dumps, _in_order(results, "image_id")))
        replace_file(folder / PREDICTIONS, f"[\n{lines}\n]\n".encode())
        for part in parts:
            _move(part, folder)
        for name in TABLES:
            if (parts[0] / name).is_file():
                replace_file(folder / name, _joined_table([part / name for part in parts]).encode())
        for part in parts:
            shutil.rmtree(part)
    return skipped


def _in_order(entries: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """In the order of what was given, and frames by their number; the order of one image's objects stays."""
    return sorted(entries, key=lambda entry: _place(entry[key]))


def _place(number: int) -> tuple[int, int]:
    video, frame = divmod(number, FRAME_IDS)
    return (video, frame) if video else (number, 0)


def _move(part: Path, folder: Path) -> None:
    """The drawings, and the files of extras."""
    for path in part.iterdir():
        if path.is_dir() and path.name in EXTRAS:
            (folder / path.name).mkdir(exist_ok=True)
            for file in path.iterdir():
                file.replace(folder / path.name / file.name)
        elif path.name not in (IMAGES, PREDICTIONS, *TABLES):
            path.replace(folder / path.name)


def _joined_table(files: Sequence[Path]) -> str:
    """The rows of tables with the same columns, by their first column, the id of an image."""
    header: list[str] = []
    rows: list[list[str]] = []
    for path in files:
        with path.open(encoding="utf-8", newline="") as file:
            header, *more = csv.reader(file)
            rows += more
    rows.sort(key=lambda row: _place(int(row[0])))
    return csv_lines([header, *rows])
