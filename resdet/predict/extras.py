"""The files that `resdet predict` writes on request: a literal table of formats, one row each."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt16
from PIL import Image

from resdet.coco.run_lengths import mask_areas
from resdet.files import readable_json
from resdet.predict.prediction import Prediction

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would execute such a cell
OBJECT_COLUMNS = (
    "image_id", "file_name", "frame", "object", "class", "category_id", "score", "x1", "y1", "x2", "y2", "area",
)  # fmt: skip


class Extra(NamedTuple):
    """Files of one kind: their folder, the suffix, whether an image has several of them, and their contents."""

    suffix: str
    several: bool
    contents: Callable[[Prediction], Iterator[bytes]]


def yolo_lines(prediction: Prediction) -> Iterator[bytes]:
    """YOLO's text: a line for each object with label, centre x and y, width and height as fractions of the image, and
    score.
    """
    scale = np.array([prediction.width, prediction.height] * 2)
    corners = prediction.boxes.astype(np.float64) / scale
    centres, sides = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    rows = zip(prediction.labels.tolist(), centres.tolist(), sides.tolist(), prediction.scores.tolist(), strict=True)
    yield "".join(
        f"{label} {x:.6f} {y:.6f} {width:.6f} {height:.6f} {score:.6f}\n"
        for label, (x, y), (width, height), score in rows
    ).encode()


def json_of_an_image(prediction: Prediction) -> Iterator[bytes]:
    """Size and objects of one image: class, score, box (x1, y1, x2, y2) and mask."""
    yield readable_json(
        {
            "height": prediction.height,
            "width": prediction.width,
            "objects": [
                {"class": one.class_name, "category_id": one.category_id, "score": one.score, "box": list(one.box)}
                | ({} if "segmentation" not in entry else {"segmentation": entry["segmentation"]})
                for one, entry in zip(prediction, prediction.to_coco(), strict=True)
            ],
        }
    )


def crops(prediction: Prediction) -> Iterator[bytes]:
    """Each object's part of the image as a JPEG."""
    for crop in prediction.crops(score=0.0):
        yield _encoded(crop, "JPEG", quality=92, subsampling=0)


def label_image(prediction: Prediction) -> Iterator[bytes]:
    """A 16-bit PNG: 0 is background, n a pixel of the n-th best object; without masks the boxes are filled."""
    png, data = cv2.imencode(".png", label_pixels(prediction))
    assert png, "a PNG of 16 bits can be written"
    yield data.tobytes()


def label_pixels(prediction: Prediction) -> UInt16[np.ndarray, "H W"]:
    """The number of the best object at each pixel, counted from 1; 0 where there is none."""
    labels = np.zeros((prediction.height, prediction.width), np.uint16)
    windows = prediction.windows()
    for index in reversed(range(len(prediction))):  # better objects are above worse ones
        if windows is None:
            x1, y1, x2, y2 = np.rint(prediction.boxes[index]).astype(int).tolist()
            labels[y1:y2, x1:x2] = index + 1
        else:
            window = windows[index]
            height, width = window.pixels.shape
            part = labels[window.y : window.y + height, window.x : window.x + width]
            part[window.pixels > 0] = index + 1
    return labels


EXTRAS: dict[str, Extra] = {  # the option's name is that of the folder
    "txt": Extra(".txt", several=False, contents=yolo_lines),
    "json": Extra(".json", several=False, contents=json_of_an_image),
    "crops": Extra(".jpg", several=True, contents=crops),
    "labels": Extra(".png", several=False, contents=label_image),
}


def object_rows(prediction: Prediction, entry: Mapping[str, Any]) -> list[list[object]]:
    """A row of objects.csv for each object; the area is that of the mask, or of the box, in pixels.

    `entry` has the id and the file_name of the image, and the number of a frame.
    """
    sides = prediction.boxes[:, 2:] - prediction.boxes[:, :2]
    areas = (sides[:, 0] * sides[:, 1]).tolist()
    if prediction.run_lengths is not None:
        areas = mask_areas(prediction.run_lengths).tolist()
    return [
        [*_beginning(entry), number, cell(one.class_name), one.category_id, f"{one.score:.6f}"]
        + [f"{side:.2f}" for side in one.box]
        + [f"{area:.1f}"]
        for number, (one, area) in enumerate(zip(prediction, areas, strict=True), start=1)
    ]


def count_row(prediction: Prediction, entry: Mapping[str, Any]) -> list[object]:
    """The row of counts.csv of an image: the number of objects, and that of each class."""
    counts = Counter(prediction.labels.tolist())
    each = [counts[label] for label in range(len(prediction.class_names))]
    return [*_beginning(entry), len(prediction), *each]


def _beginning(entry: Mapping[str, Any]) -> list[object]:
    return [entry["id"], cell(entry["file_name"]), entry.get("frame", "")]


def count_columns(class_names: Sequence[str]) -> list[str]:
    return ["image_id", "file_name", "frame", "objects", *map(cell, class_names)]


def csv_lines(rows: Sequence[Sequence[object]]) -> str:
    """Rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula: what begins like one gets an apostrophe in front."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def _encoded(picture: Image.Image, kind: str, **options: int) -> bytes:
    data = io.BytesIO()
    picture.save(data, kind, **options)
    return data.getvalue()
