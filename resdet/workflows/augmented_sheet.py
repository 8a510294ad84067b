"""Draws training samples as a model sees them: after augmentation, with their boxes and masks."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, PngImagePlugin

from resdet.data.augment.samples import Sampled
from resdet.data.batches.loader import open_split, training_samples
from resdet.data.batches.samplers import sample_seed
from resdet.data.images.masks import MaskWindow
from resdet.data.sets.coco import CocoDataset
from resdet.drawing.boxes import draw_detections, grid
from resdet.engine.task.table import task_of
from resdet.errors import UserError
from resdet.files import usable_paths
from resdet.outputs import SOFTWARE, write_output
from resdet.workflows.train import ConfigLike, read_config

IGNORED = "ignored"  # the tag of crowd regions and of objects of which too little is left
MASK_CELLS = 128  # a side of the masks that are drawn
COLUMNS = 4
ANOTHER_SHEET = "name another file"


@dataclass(frozen=True, eq=False)
class AugmentedSheet:
    """The picture, and the numbers of objects in it: to learn, ignored, and dropped by reason."""

    picture: UInt8[np.ndarray, "H W 3"]
    objects: int
    ignored: int
    dropped: dict[str, int]

    def save(self, path: str | Path) -> Path:
        """Writes a PNG. Raises UserError if it cannot be written, or if it would replace a file of somebody else."""
        mark, data = PngImagePlugin.PngInfo(), io.BytesIO()
        for name, value in SOFTWARE.items():
            mark.add_text(name, value)
        Image.fromarray(self.picture).save(data, "PNG", pnginfo=mark)
        write_output(Path(path), data.getvalue(), ANOTHER_SHEET)
        return Path(path)


@usable_paths()
def draw_augmented(
    config: ConfigLike, *, overrides: Sequence[str] = (), dataset: CocoDataset | None = None, count: int = 12
) -> AugmentedSheet:
    """The first `count` training samples of a config's first epoch, in the order of the file, with boxes and masks.

    `config` and `overrides` are those of `resdet.train`; `dataset` replaces the training set of the config. Raises
    UserError for a config, data or augmentation that training would refuse.
    """
    chosen = read_config(config, overrides)
    if not task_of(chosen).has_detections:
        raise UserError(f"task={chosen.task}: augmented samples are drawn for task=detection")
    data = open_split(chosen.data, "train") if dataset is None else dataset
    samples = training_samples(data, chosen.data)
    samples.check()
    cells, captions = list[UInt8[np.ndarray, "_ _ 3"]](), list[str]()
    totals, dropped = Counter[bool](), Counter[str]()
    for index in np.flatnonzero(~data.missing)[:count].tolist():
        sample = samples.sample(index, sample_seed(chosen.train.seed, 0, index), MASK_CELLS)
        totals.update(sample.ignored.tolist())
        dropped.update(sample.dropped)
        cells.append(_drawn(sample, data))
        height, width = sample.image.shape[:2]
        captions.append(f"{data.image_ids[index]}: {width} x {height}, {len(sample.boxes)} objects")
    if not cells:
        raise UserError(f"{data.annotations}: has no image to draw")
    return AugmentedSheet(grid(cells, columns=COLUMNS, captions=captions), totals[False], totals[True], dict(dropped))


def _drawn(sample: Sampled, dataset: CocoDataset) -> UInt8[np.ndarray, "h w 3"]:
    names = [*dataset.class_names, IGNORED]
    labels = np.where(sample.ignored, len(dataset.class_names), dataset.labels[sample.rows])
    masks = None
    if sample.masks is not None and sample.masks.any():
        masks = [_window(mask, box) for mask, box in zip(sample.masks, sample.boxes, strict=True)]
    return draw_detections(sample.image, sample.boxes, labels, None, names, masks=masks)


def _window(mask: UInt8[np.ndarray, "B B"], box: Float32[np.ndarray, "4"]) -> MaskWindow:
    """A mask in the frame of its box, in pixels of the image."""
    x1, y1, x2, y2 = np.rint(box).astype(int).tolist()
    size = (max(1, x2 - x1), max(1, y2 - y1))
    return MaskWindow((cv2.resize(mask, size, interpolation=cv2.INTER_LINEAR) >= 128).astype(np.uint8), x1, y1)
