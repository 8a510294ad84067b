"""Pictures of a data set with the ground truth beside the predictions, and all of them on one sheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from resdet.config import Config
from resdet.data.coco import CocoDataset
from resdet.data.images import ImageError, read_image
from resdet.errors import UserError
from resdet.inference.drawing import draw_detections, grid, side_by_side
from resdet.inference.image_list import drawing_names
from resdet.inference.prediction_folder import save_drawing, writing
from resdet.inference.predictor import ImagePrediction, Predictor

FOLDER, OVERVIEW = "drawings", "overview.jpg"
DRAWN_SCORE = 0.5
CELL = 360  # pixels: the width of a picture on the sheet


def draw_gallery(
    predictor: Predictor,
    dataset: CocoDataset,
    config: Config,
    output: Path,
    *,
    class_names: Sequence[str] | None = None,
    count: int = 12,
) -> Path:
    """Draws ground truth and predictions of up to `count` images, evenly spread over those with objects.

    Each gets `output/drawings/<name>.jpg`; the path returned is that of the sheet with all of them. `class_names`
    are the model's, where they differ from the data set's; a class has one colour in both pictures.

    Raises UserError when the folder of drawings holds files but no sheet, cannot be written, or when an image cannot
    be read (with data.on_bad_image=skip it is left out).
    """
    folder = output / FOLDER
    _make(folder)
    names = list(dict.fromkeys([*dataset.class_names, *(class_names or ())]))
    labels = np.array([names.index(name) for name in class_names or dataset.class_names], np.int64)
    chosen = spread(dataset, count)
    files = drawing_names([OVERVIEW, *(dataset.file_names[index] for index in chosen)])[1:]
    pictures, captions = [], []
    for index, prediction in _predictions(predictor, dataset, config, chosen):
        truth = draw_truth(prediction.image, dataset, index)
        shown = prediction.scores >= DRAWN_SCORE
        found = draw_detections(
            prediction.image, prediction.boxes[shown], labels[prediction.labels[shown]], prediction.scores[shown], names
        )
        headings = ("ground truth", f"predictions, score at least {DRAWN_SCORE:g}")
        with writing(folder):
            save_drawing(folder / files[chosen.index(index)], side_by_side(truth, found, captions=headings))
        pictures += [truth, found]
        captions += [f"{Path(dataset.file_names[index]).name}: ground truth", headings[1]]
    if not pictures:
        raise UserError(f"{dataset.annotations}: no image to draw could be read; see data_report.json")
    with writing(folder):
        save_drawing(folder / OVERVIEW, grid(pictures, columns=4, captions=captions, cell_width=CELL))
    return folder / OVERVIEW


def draw_truth(image: UInt8[np.ndarray, "H W 3"], dataset: CocoDataset, index: int) -> UInt8[np.ndarray, "h w 3"]:
    """An image with its annotated objects; crowd regions are left out."""
    rows = dataset.rows(index)
    single = ~dataset.crowd[rows]
    return draw_detections(image, dataset.boxes[rows][single], dataset.labels[rows][single], None, dataset.class_names)


def spread(dataset: CocoDataset, count: int) -> list[int]:
    """Up to `count` images at even distances among those with objects (among all, where none has one)."""
    candidates = np.flatnonzero(dataset.objects_per_image() > 0)
    if not len(candidates):
        candidates = np.arange(len(dataset))
    count = min(count, len(candidates))
    return candidates[np.linspace(0, len(candidates) - 1, count).round().astype(np.int64)].tolist()


def _predictions(
    predictor: Predictor, dataset: CocoDataset, config: Config, indices: Sequence[int]
) -> Iterator[tuple[int, ImagePrediction]]:
    for index in indices:
        height, width = int(dataset.heights[index]), int(dataset.widths[index])
        try:
            image = read_image(dataset.path(index), height, width, sixteen_bit=config.data.sixteen_bit)
        except ImageError:
            if config.data.on_bad_image == "error":
                raise
            continue  # the evaluation before has counted it
        yield index, predictor.predict([image])[0]


def _make(folder: Path) -> None:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / OVERVIEW).exists():
            raise UserError(f"{folder}: holds files that resdet did not draw; choose another --output")
