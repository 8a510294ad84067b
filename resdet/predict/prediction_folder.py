"""The output folder of a prediction: drawings, videos of drawings, predictions.json and images.json."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import numpy as np

from resdet.data.images.decode import ImageError
from resdet.engine.run_folder import PREDICTIONS
from resdet.errors import UserError
from resdet.files import leftovers, readable_json, replace_file, whole_file, writing
from resdet.predict.drawn_video import SUFFIX, DrawnVideo, drawn_video
from resdet.predict.extras import EXTRAS, OBJECT_COLUMNS, count_columns, count_row, csv_lines, object_rows
from resdet.predict.image_list import drawing_names
from resdet.predict.prediction import Colors, Prediction, save_picture
from resdet.predict.video import Clip, Video

IMAGES = "images.json"
TABLES = ("objects.csv", "counts.csv")
FRAME_IDS = 10_000_000  # the id of a frame is this many times the id of its video, and the frame's number


class PredictionFolder:
    """Writes predictions one by one; at the end, also after an error or a signal, its files are complete.

    predictions.json has COCO's results form with the file's name beside its image id: a list of {image_id, file_name,
    category_id, bbox (x, y, width, height in pixels of the upright image), score}, and segmentation, a run-length
    encoding, from a detector with masks. `resdet score` pairs them with its ground truth by file_name; pycocotools
    ignores that field. images.json lists the images with id, file_name, drawing, height and width, for skipped images
    the reason, and the categories. Image ids count the files from 1. Drawings have the boxes with at least
    `drawn_score`. A video or a camera gives one video of drawings; its frames are images with an id of their own (see
    FRAME_IDS), and with `frame` and `seconds` beside `file_name`.

    `extras` are rows of EXTRAS: each gives a folder with files for the objects with at least `drawn_score`, under the
    names of the drawings. `tables` writes such objects to objects.csv, and their numbers by image to counts.csv.
    """

    def __init__(
        self,
        folder: Path,
        given: Sequence[Path | str | Clip],
        *,
        class_names: Sequence[str],
        category_ids: Sequence[int],
        drawn_score: float,
        colors: Colors = "class",
        extras: Collection[str] = (),
        tables: bool = False,
    ) -> None:
        self.folder = folder
        self.colors: Colors = colors
        self.paths = [Path(each.path) if isinstance(each, Video) else each for each in given]
        self.extras, self.tables = tuple(extras), tables
        self._open = ExitStack()
        self._video: tuple[str, DrawnVideo, ExitStack] | None = None  # of the clip that is being predicted
        self.class_names, self.category_ids, self.drawn_score = class_names, category_ids, drawn_score
        self.drawn = 0  # the number of boxes in all drawings
        self.planned: dict[str, dict[str, Any]] = {
            name_of(each): {"id": number, "file_name": _readable(each), "drawing": name}
            for number, (each, name) in enumerate(zip(given, drawing_names(given), strict=True), start=1)
        }
        self.images: list[dict[str, Any]] = []
        self.skipped: list[dict[str, Any]] = []

    def __enter__(self) -> PredictionFolder:
        """Creates the folder, or empties a folder of earlier predictions.

        Raises UserError if the folder contains anything else, or one of the images.
        """
        folder = self.folder
        if any(Path(path).parent.resolve() == folder.resolve() for path in self.paths if isinstance(path, Path)):
            raise UserError(f"{folder}: holds the images themselves; choose another --output")
        with writing(folder):
            clear_folder(folder)
            self._write_images(list(self.planned.values()))
            self._results = self._open.enter_context(_array_file(folder / PREDICTIONS))
            for name in self.extras:
                (folder / name).mkdir()
            if self.tables:
                self._objects, self._counts = (self._open.enter_context(_text_file(folder / name)) for name in TABLES)
                _ = self._objects.write(csv_lines([OBJECT_COLUMNS]))
                _ = self._counts.write(csv_lines([count_columns(self.class_names)]))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with writing(self.folder):
            self._close_video()
            self._open.close()  # also after an error, because the finished predictions are useful
            self._write_images(self.images)

    def add(self, prediction: Prediction) -> None:
        """Writes one image's drawing and detections. It is that of an image or a frame of what was given."""
        entry = self.planned[prediction.source.given]
        stem = Path(entry["drawing"]).stem
        if (moment := prediction.moment) is not None:
            number = FRAME_IDS * entry["id"] + moment.number
            entry = {**entry, "id": number, "frame": moment.number, "seconds": round(moment.seconds, 3)}
            stem = f"{stem}.{moment.number:06d}"
        with writing(self.folder):
            self._draw(prediction, entry["drawing"])
            named = {key: entry[key] for key in ("file_name", "frame") if key in entry}
            for result in prediction.to_coco(entry["id"]):
                line = json.dumps({**result, **named})
                _ = self._results.write(("\n" if self._results.tell() == 1 else ",\n") + line)
            shown = prediction.chosen(score=self.drawn_score)
            self._write_extras(shown, entry, stem)
        self.images.append({**entry, "height": prediction.height, "width": prediction.width})
        self.drawn += len(shown)

    def _draw(self, prediction: Prediction, name: str) -> None:
        picture, moment = prediction.draw(score=self.drawn_score, colors=self.colors), prediction.moment
        if self._video is not None and (moment is None or self._video[0] != name):
            self._close_video()
        if moment is None:
            save_picture(picture, self.folder / name)
            return
        if self._video is None:
            opened = ExitStack()
            video = opened.enter_context(drawn_video(self.folder / name, moment.rate))
            self._video = (name, video, opened)
        self._video[1].add(np.asarray(picture), moment.seconds if moment.live else None)

    def _close_video(self) -> None:
        if self._video is not None:
            _, _, opened = self._video
            self._video = None
            opened.close()

    def skip(self, name: str, problem: ImageError) -> None:
        """Records an image that could not be read, by the name of its source."""
        entry = self.planned[name]
        self.skipped.append({"id": entry["id"], "file_name": entry["file_name"], "problem": str(problem)})

    def _write_extras(self, shown: Prediction, entry: dict[str, Any], stem: str) -> None:
        for name in self.extras:
            extra = EXTRAS[name]
            for number, content in enumerate(extra.contents(shown), start=1):
                file = f"{stem}.{number}{extra.suffix}" if extra.several else f"{stem}{extra.suffix}"
                replace_file(self.folder / name / file, content)
        if self.tables:
            _ = self._objects.write(csv_lines(object_rows(shown, entry)))
            _ = self._counts.write(csv_lines([count_row(shown, entry)]))

    def _write_images(self, images: list[dict[str, Any]]) -> None:
        categories = [
            {"id": number, "name": name} for number, name in zip(self.category_ids, self.class_names, strict=True)
        ]
        content = {"images": images, "skipped": self.skipped, "categories": categories}
        replace_file(self.folder / IMAGES, readable_json(content))


def clear_folder(folder: Path) -> None:
    """Creates the folder, or empties a folder of earlier predictions. Raises UserError if it contains anything else."""
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for path in _earlier(folder):
        path.rmdir() if path.is_dir() else path.unlink()


def check_folder(folder: Path) -> None:
    """Raises UserError for a folder that contains anything but earlier predictions."""
    with writing(folder):
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder}: is a file; --output takes a folder")
        if folder.exists():
            _ = _earlier(folder)


def name_of(given: Path | str | Clip) -> str:
    """The name of an image, an address, a video or a camera, as its sources have it (`Source.given`)."""
    return given.name if isinstance(given, Clip) else str(given)


def _readable(given: Path | str | Clip) -> str:
    """The path with / between folders; bytes that are not UTF-8 become question marks, because JSON cannot contain
    them.
    """
    path = Path(given.path) if isinstance(given, Video) else given
    return os.fsencode(path.as_posix() if isinstance(path, Path) else name_of(path)).decode("utf-8", "replace")


@contextmanager
def _text_file(path: Path) -> Iterator[TextIO]:
    """A text to which is appended; it replaces the old file when it is closed."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        yield file


@contextmanager
def _array_file(path: Path) -> Iterator[TextIO]:
    """A JSON array to which entries are appended; it replaces the old file when it is closed."""
    with _text_file(path) as file:
        _ = file.write("[")
        yield file
        _ = file.write("\n]\n")


def _earlier(folder: Path) -> list[Path]:
    """The files of earlier predictions in a folder, and then the folders of extras. Raises UserError if the folder
    contains anything else.
    """
    entries = list(folder.iterdir())
    extras = [path for path in entries if path.name in EXTRAS and path.is_dir() and not path.is_symlink()]
    inside = [file for path in extras for file in path.iterdir()]
    try:
        content = json.loads((folder / IMAGES).read_bytes()) if entries else {"images": []}
        drawings = {image["drawing"] for image in content["images"]}
        stems = {Path(drawing).stem for drawing in drawings}
        videos = {drawing for drawing in drawings if drawing.endswith(SUFFIX)}
        unfinished = (
            path.name for name in (PREDICTIONS, IMAGES, *TABLES, *videos) for path in leftovers(folder / name)
        )
        ours = {PREDICTIONS, IMAGES, *TABLES, *unfinished, *drawings}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        ours, stems = set(), set()
    files = [path for path in entries if path.name in ours and not path.is_dir()]
    files += [file for file in inside if _is_extra(file, stems)]
    found = [*files, *(extras if ours else ())]
    others = sorted(path.relative_to(folder).as_posix() for path in (*entries, *inside) if path not in found)
    if others:
        raise UserError(
            f"{folder}: holds {others[0]!r}, which resdet predict did not write; choose another --output, or a new one"
        )
    return found


def _is_extra(file: Path, stems: Collection[str]) -> bool:
    """Whether a file in a folder of extras belongs to one of the images with these stems, or was left unfinished."""
    extra = EXTRAS[file.parent.name]
    if file.is_dir() or (file.suffix == ".tmp" and file.name.startswith(".")):
        return not file.is_dir()
    stem, dot, number = file.stem.rpartition(".") if extra.several else (file.stem, ".", "1")
    of_a_video, _, frame = stem.rpartition(".")
    ours = stem in stems or (of_a_video in stems and frame.isdigit())
    return file.suffix == extra.suffix and bool(dot) and number.isdigit() and ours
