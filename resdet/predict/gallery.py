"""Pictures of a data set with the ground truth beside the detections of an evaluation, and all of them on one sheet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from PIL import Image

from resdet.coco.run_lengths import checked_masks
from resdet.config import Config
from resdet.data.images.decode import ImageError, read_image, resize
from resdet.data.images.masks import MaskWindow, encoded_window, mask_window
from resdet.data.sets.coco import CocoDataset
from resdet.drawing.boxes import PAPER, draw_detections, grid, side_by_side
from resdet.drawing.masks import resized
from resdet.engine.evaluate import evaluated_set
from resdet.engine.run_folder import RunFiles, read_run
from resdet.engine.task.table import detection_of
from resdet.errors import UserError
from resdet.evaluation.coco import CocoResults, read_results
from resdet.files import leftovers, writing
from resdet.predict.image_list import drawing_names
from resdet.predict.prediction import DRAWN_SCORE, save_picture

OVERVIEW = "overview.jpg"
CAPTIONS = ("ground truth", f"predictions, score at least {DRAWN_SCORE:g}")
CELL = 480  # pixels: the width of a picture on the sheet


@dataclass(frozen=True)
class Example:
    """One image with its annotated objects and its detections; boxes are in its pixels, labels index one list
    of names.
    """

    file_name: str
    image: UInt8[np.ndarray, "H W 3"]
    true_boxes: Float32[np.ndarray, "g 4"]
    true_labels: Int64[np.ndarray, " g"]
    boxes: Float32[np.ndarray, "d 4"]
    labels: Int64[np.ndarray, " d"]
    scores: Float32[np.ndarray, " d"]
    true_masks: tuple[MaskWindow, ...] | None = None  # beside predicted boxes
    masks: tuple[MaskWindow, ...] | None = None

    @property
    def aspect(self) -> float:
        return self.image.shape[0] / self.image.shape[1]

    def fitted(self, width: int, height: int) -> Example:
        """The picture resized to fit into a cell, with background beside an image that is too tall to fill
        its width.
        """
        scale = min(width / self.image.shape[1], height / self.image.shape[0])
        inner = max(1, round(self.image.shape[1] * scale))
        image = resize(self.image, (max(1, round(self.image.shape[0] * scale)), inner))
        image = np.pad(image, ((0, 0), (0, width - inner), (0, 0)), constant_values=PAPER[0])
        factor = np.float32(scale)
        return replace(
            self,
            image=image,
            true_boxes=self.true_boxes * factor,
            boxes=self.boxes * factor,
            true_masks=self.true_masks and tuple(resized(mask, scale) for mask in self.true_masks),
            masks=self.masks and tuple(resized(mask, scale) for mask in self.masks),
        )

    def drawn(
        self, names: Sequence[str], *, min_side: int
    ) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w 3"]]:
        """The picture of the ground truth and the picture of the predictions."""
        truth = draw_detections(
            self.image, self.true_boxes, self.true_labels, None, names, masks=self.true_masks, min_side=min_side
        )
        found = draw_detections(
            self.image, self.boxes, self.labels, self.scores, names, masks=self.masks, min_side=min_side
        )
        return truth, found


def draw_run(run: Path, dataset: CocoDataset | None = None) -> Path:
    """Draws the detections of a run's last evaluation beside the ground truth; returns the path of the sheet.

    `dataset` are the images of that evaluation, if they are open already. Raises UserError if the run has
    no detections, and as `draw_gallery` does.
    """
    folder = read_run(run)
    if folder.predictions is None:
        raise UserError(f"{run}: has no detections; resdet evaluate {run} --output {run} writes them")
    if dataset is None:
        dataset = evaluated_set(folder.config)
    results = read_results(folder.predictions, dataset.ground_truth())
    return draw_gallery(results, detection_of(folder.config).categories(dataset), dataset, folder.config, run)


def draw_gallery(
    results: CocoResults,
    categories: Mapping[int, str],
    dataset: CocoDataset,
    config: Config,
    output: Path,
    *,
    count: int = 12,
) -> Path:
    """Draws ground truth and detections of up to `count` images, evenly spread over those with objects.

    Each image gives `output/drawings/<name>.jpg`; the function returns the path of the sheet with all of them.
    `categories` are the names of the ids in `results`, which may differ from the data set's; each class has the same
    colour in all pictures. Crowd regions are not drawn.

    Raises UserError when the folder of drawings holds files but no sheet, when it cannot be written, or when an image
    cannot be read (with data.on_bad_image=skip it is left out).
    """
    folder = RunFiles(output).drawings
    _make(folder)
    names = list(dict.fromkeys([*dataset.class_names, *categories.values()]))
    labels = {number: names.index(name) for number, name in categories.items()}
    found = _Found(results, labels, with_masks=config.model.mask_head is not None)
    examples = list(_examples(found, dataset, config, spread(dataset, count)))
    if not examples:
        raise UserError(f"{dataset.annotations}: none of {count} images to draw can be read; check the images")
    files = drawing_names([OVERVIEW, *(example.file_name for example in examples)])[1:]
    with writing(folder):
        # The sheet is the mark of the folder: written first, it is there if a kill leaves only some of the pictures.
        save_picture(Image.fromarray(contact_sheet(examples, names)), folder / OVERVIEW)
        for name, example in zip(files, examples, strict=True):
            picture = side_by_side(*example.drawn(names, min_side=480), captions=CAPTIONS)
            save_picture(Image.fromarray(picture), folder / name)
    return folder / OVERVIEW


def contact_sheet(examples: Sequence[Example], names: Sequence[str]) -> UInt8[np.ndarray, "h w 3"]:
    """Two examples per row, wide images before tall ones, so that neighbours have similar heights."""
    pictures: list[UInt8[np.ndarray, "_ _ 3"]] = []
    captions: list[str] = []
    for example in sorted(examples, key=lambda example: example.aspect):
        pictures += example.fitted(CELL, 2 * CELL).drawn(
            names, min_side=0
        )  # tags are drawn at the size at which they are seen
        captions += [f"{Path(example.file_name).name}: {CAPTIONS[0]}", CAPTIONS[1]]
    return grid(pictures, columns=4, captions=captions, cell_width=CELL)


def spread(dataset: CocoDataset, count: int) -> list[int]:
    """Up to `count` images at even distances among those with objects (among all images, if none has objects)."""
    candidates = np.flatnonzero(dataset.objects_per_image() > 0)
    if not len(candidates):
        candidates = np.arange(len(dataset))
    count = min(count, len(candidates))
    return candidates[np.linspace(0, len(candidates) - 1, count).round().astype(np.int64)].tolist()


class _Found:
    """Detections to be drawn, by image, best first; `labels` are the indices of their categories in the list
    of names.
    """

    def __init__(self, results: CocoResults, labels: Mapping[int, int], *, with_masks: bool) -> None:
        assert results.boxes is not None, "detections without boxes"
        self.results, self.labels = results, labels
        self.segmentations = results.segmentations if with_masks else None
        self.boxes, self.scores, self.category_ids = results.boxes, results.scores, results.category_ids
        self._rows: dict[int, list[int]] = {}
        order = np.argsort(-self.scores, kind="stable")
        for row in order[self.scores[order] >= DRAWN_SCORE].tolist():
            self._rows.setdefault(int(results.image_ids[row]), []).append(row)

    def rows(self, image_id: int) -> list[int]:
        return self._rows.get(image_id, [])

    def corners(self, rows: Sequence[int]) -> Float32[np.ndarray, "d 4"]:
        boxes = self.boxes[rows].reshape(-1, 4)
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float32)

    def masks(self, rows: Sequence[int], height: int, width: int) -> tuple[MaskWindow, ...] | None:
        segmentations = self.segmentations
        if segmentations is None:
            return None
        checked = checked_masks(
            [segmentations[row] for row in rows],
            [(height, width)] * len(rows),
            lambda index: self.results.where(rows[index]),
        )
        return tuple(map(encoded_window, checked))


def _examples(found: _Found, dataset: CocoDataset, config: Config, indices: Sequence[int]) -> Iterator[Example]:
    for index in indices:
        height, width = int(dataset.heights[index]), int(dataset.widths[index])
        try:
            image = read_image(dataset.path(index), height, width, sixteen_bit=config.data.sixteen_bit)
        except ImageError:
            if config.data.on_bad_image == "error":
                raise
            continue  # the evaluation has already counted this image
        shown, rows = found.rows(int(dataset.image_ids[index])), dataset.rows(index)
        single = ~dataset.crowd[rows]
        masks, true_masks = found.masks(shown, height, width), None
        if masks is not None:
            objects = (np.flatnonzero(single) + rows.start).tolist()
            true_masks = tuple(mask_window(dataset.segmentations, row, height, width) for row in objects)
        yield Example(
            file_name=dataset.file_names[index],
            image=image,
            true_boxes=dataset.boxes[rows][single],
            true_labels=dataset.labels[rows][single],
            boxes=found.corners(shown),
            labels=np.array([found.labels[int(found.category_ids[row])] for row in shown], np.int64),
            scores=found.scores[shown].astype(np.float32),
            true_masks=true_masks,
            masks=masks,
        )


def _make(folder: Path) -> None:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        others = set(folder.iterdir()) - set(leftovers(folder / OVERVIEW))
        if others and not (folder / OVERVIEW).exists():
            raise UserError(f"{folder}: holds files that resdet did not draw; choose another --output")
