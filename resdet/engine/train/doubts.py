"""Warnings about settings that are possible, but under which a training learns little."""

from __future__ import annotations

import numpy as np

from resdet.config import Config
from resdet.data.sets.coco import CocoDataset
from resdet.engine.train.schedules import WITHOUT_WARMUP
from resdet.ops.array_boxes import best_anchor_iou

MOST_MEASURED = 20_000  # objects: more do not change the share
OVERLAP = 0.5  # with an anchor of the same centre
FEWEST = 0.5  # of the objects, that an anchor should overlap so much


def endless_warmup(config: Config) -> list[str]:
    """Warns about a warm-up that is as long as the training: the learning rate never reaches optim.lr."""
    optim, steps = config.optim, config.train.steps
    if optim.schedule in WITHOUT_WARMUP or optim.warmup_steps < max(steps, 2):
        return []
    return [
        f"optim.warmup_steps={optim.warmup_steps} is no less than train.steps={steps}: the learning rate never reaches"
        f" its peak; a tenth of the steps is usual, optim.warmup_steps={max(1, steps // 10)}"
    ]


def missing_anchors(config: Config, dataset: CocoDataset) -> list[str]:
    """Warns about anchors that fit few objects, as they are after resizing for evaluation."""
    rows = np.flatnonzero(~dataset.crowd)
    rows = rows[:: max(1, len(rows) // MOST_MEASURED)]
    if not len(rows):
        return []
    image = np.searchsorted(dataset.offsets, rows, side="right") - 1
    sides = np.sort(np.stack([dataset.heights[image], dataset.widths[image]]), axis=0)
    augment = config.data.augment
    scale = np.minimum(augment.test_short_side / sides[0], augment.max_side / sides[1])
    widths, heights = ((dataset.boxes[rows, 2:] - dataset.boxes[rows, :2]) * scale[:, None]).T
    anchors = config.model.anchors
    share = float((best_anchor_iou(widths, heights, anchors.sizes, anchors.ratios) >= OVERLAP).mean())
    if share >= FEWEST:
        return []
    middle = float(np.median(np.sqrt(widths * heights)))
    return [
        f"anchors overlap only {share:.0%} of the objects by half or more: model.anchors.sizes are"
        f" {min(anchors.sizes):g} to {max(anchors.sizes):g}, and at data.augment.test_short_side="
        f"{augment.test_short_side} half of the objects are smaller than {middle:.0f} pixels (root of the area);"
        " resdet check-data suggests sizes"
    ]
