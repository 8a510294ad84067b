"""A config that fits a data set and this machine; every line of it says why."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from resdet.config import Config, DataConfig
from resdet.config.load import config_from_yaml
from resdet.data.sets.coco import CocoDataset
from resdet.data.sets.layouts import AUTO, layout_of
from resdet.data.sets.opened import open_set
from resdet.errors import UserError
from resdet.text import first_few, printable

SMALL = 24.0  # pixels that a small object (a tenth are smaller) should have after resizing
SHORT_SIDES = (256, 800)  # pixels: the smallest and the largest that are suggested
CPU_SHORT_SIDE = 480  # pixels: a CPU needs minutes for what a GPU does in seconds
FIRST_SIZES = (8.0, 16.0, 32.0, 64.0)  # of the finest level; each further level has twice the size
LEVELS = 5
FOUND = 0.5  # overlap with an anchor of the same centre above which an object counts as covered
WORTH = 0.01  # a share of objects for which the default anchors are given up
USUAL_RATIOS = (0.5, 1.0, 2.0)
IMAGES_SEEN = {"cuda": 60_000, "cpu": 8_000}  # by a training of suggested length
EPOCHS = {"cuda": (12, 150), "cpu": (2, 60)}
BATCH = {"cuda": 16, "cpu": 4}


@dataclass(frozen=True)
class Measured:
    """What a training set says: sizes in pixels, `roots` are square roots of box areas."""

    short_side: float
    long_over_short: float  # of all but a hundredth of the images
    widths: Float[np.ndarray, " M"]
    heights: Float[np.ndarray, " M"]
    most_objects: int
    images: int
    masks: float  # share of objects with a mask

    @property
    def roots(self) -> Float[np.ndarray, " M"]:
        return np.sqrt(self.widths * self.heights)


def fitted_config(folder: str | Path, *, device: str = "auto", format: str = AUTO) -> str:
    """The YAML text of a config for the data set in a folder (docs/formats.md), for a GPU if there is one. `format` is
    that of data.format, for a folder of which several are possible.

    Raises UserError for a folder without a data set, for data that cannot be trained on, and for splits with other
    categories than each other.
    """
    folder = Path(folder)
    layout = layout_of(folder, format)
    data = DataConfig(path=[str(folder)], format=layout)
    train, val = open_set(data, "train"), open_set(data, "val")
    if val.class_names != train.class_names:
        raise UserError(
            f"{folder}: the categories of val ({first_few(val.class_names)}) are not those of train"
            f" ({first_few(train.class_names)}); list the same in both"
        )
    place = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    text = _text(folder, layout, train, len(val), measured(train), place)
    _: Config = config_from_yaml(text, "the suggested config")
    return text


def measured(train: CocoDataset) -> Measured:
    """The sizes of images and objects in a training set."""
    boxes = train.boxes[~train.crowd].astype(np.float64)
    short, long = np.minimum(train.heights, train.widths), np.maximum(train.heights, train.widths)
    return Measured(
        short_side=float(np.median(short)),
        long_over_short=float(np.quantile(long / short, 0.99)),
        widths=boxes[:, 2] - boxes[:, 0],
        heights=boxes[:, 3] - boxes[:, 1],
        most_objects=int(train.objects_per_image().max()),
        images=len(train),
        masks=min(1.0, train.report.masks / max(1, train.report.objects)),  # those of crowd count, too
    )


def short_side_for(seen: Measured, place: str) -> int:
    """The short side at which small objects have SMALL pixels, in steps of 32; images are at most doubled."""
    wanted = seen.short_side * min(2.0, SMALL / float(np.quantile(seen.roots, 0.1)))
    least, most = SHORT_SIDES[0], CPU_SHORT_SIDE if place == "cpu" else SHORT_SIDES[1]
    return int(np.clip(32 * round(wanted / 32), least, most))


def covered(
    widths: Float[np.ndarray, " M"], heights: Float[np.ndarray, " M"], sizes: list[float], ratios: list[float]
) -> float:
    """The share of objects that an anchor of the same centre overlaps by FOUND."""
    size, root = np.repeat(sizes, len(ratios)), np.sqrt(np.tile(ratios, len(sizes)))
    across = np.minimum(widths[:, None], size / root)
    down = np.minimum(heights[:, None], size * root)
    union = (widths * heights)[:, None] + size**2 - across * down
    return float((across * down / union >= FOUND).any(axis=1).mean())


def anchors_for(
    widths: Float[np.ndarray, " M"], heights: Float[np.ndarray, " M"]
) -> tuple[list[float], list[float], float]:
    """Sizes, ratios and the covered share; the usual ratios, and the largest sizes, unless others cover more."""
    own = sorted({round(float(ratio), 2) for ratio in np.quantile(heights / widths, (0.1, 0.5, 0.9))})
    choices = []
    for ratios in (list(USUAL_RATIOS), own):
        for first in reversed(FIRST_SIZES):
            sizes = [first * 2**level for level in range(LEVELS)]
            choices.append((sizes, ratios, covered(widths, heights, sizes, ratios)))
    best = max(share for _, _, share in choices)
    return next(choice for choice in choices if choice[2] >= best - WORTH)


def _text(folder: Path, layout: str, train: CocoDataset, val_images: int, seen: Measured, place: str) -> str:
    side = short_side_for(seen, place)
    scale = side / seen.short_side
    longest = 32 * int(np.ceil(side * max(seen.long_over_short, 1.0) / 32))
    sizes, ratios, share = anchors_for(seen.widths * scale, seen.heights * scale)
    usual = covered(
        seen.widths * scale, seen.heights * scale, [32.0 * 2**level for level in range(LEVELS)], list(USUAL_RATIOS)
    )
    batch = min(BATCH[place], seen.images)
    epochs = int(np.clip(round(IMAGES_SEEN[place] / seen.images), *EPOCHS[place]))
    steps = max(1, epochs * seen.images // batch)
    small = float(np.quantile(seen.roots, 0.1))
    backbone = "resnet50" if place == "cuda" else "resnet18"
    rarest = min(train.report.class_counts.items(), key=lambda item: item[1])
    classes = "1 class" if len(train.class_names) == 1 else f"{len(train.class_names)} classes"
    where = "a GPU" if place == "cuda" else "a CPU; train on a GPU with other numbers, or run this again there"
    lines = [
        f"# {'Mask' if seen.masks > 0.9 else 'Faster'} R-CNN, {backbone} with FPN, for"
        f" {_plain(str(folder))}, by resdet new",
        "#   resdet train THIS_FILE --output runs/mine          resdet train --help-config [PREFIX] lists every key",
        f"# Written for {where}.",
        f"# {classes}: {_plain(first_few(train.class_names, 12))}.",
        f"# {seen.images:,} training images with {len(seen.widths):,} objects, {val_images:,} val images; the rarest"
        f" class, {_plain(rarest[0])}, has {rarest[1]:,}.",
        "model:",
        "  backbone:",
        f"    name: {backbone}  # {_why_backbone(place)}",
        "    weights: IMAGENET1K_V1  # torchvision's, fetched at the first use; null trains from scratch, which takes"
        " far longer",
    ]
    lines += [
        "  anchors:",
        f"    sizes: {_list(sizes)}  # one a level; {share:.1%} of the objects have an anchor that overlaps {FOUND} or"
        f" more, {usual:.1%} with the default 32 to 512",
        f"    ratios: {_list(ratios)}  # {_why_ratios(ratios, seen)}",
    ]
    if seen.most_objects > 80:
        lines += [
            "  box_head:",
            f"    detections: {round(1.25 * seen.most_objects)}  # kept an image; one image has {seen.most_objects}"
            " objects",
        ]
    if seen.masks > 0.9:
        lines += [
            "  mask_head:",
            f"    name: fcn  # {seen.masks:.0%} of the objects have a mask; leave it out for boxes alone",
        ]
    lines += [
        "data:",
        f"  path: [{_quoted(folder)}]  # resdet check-data FOLDER says what is in it",
        f"  format: {layout}  # as the folder's layout says",
        "  augment:",
        f"    short_side: [{side}]  # {_why_side(small, scale, side, seen, place)}",
        f"    test_short_side: {side}  # as in training",
        f"    max_side: {longest}  # long enough for all but 1 % of the images, whose sides differ by up to"
        f" {seen.long_over_short:.2f} times",
        "train:",
        f"  epochs: {epochs}  # {steps:,} steps, {epochs * seen.images:,} images; more of them help while the AP still"
        " rises",
        f"  batch_size: {batch}  # images an update; optim.lr is scaled to it. Half of it if memory does not suffice",
        f"  checkpoint_every: {max(1, steps // 5)}  # five in the run",
        "optim:",
        f"  warmup_steps: {min(1000, max(1, steps // 10))}  # a tenth of the steps, at most 1000",
        "eval:",
        f"  every: {max(1, steps // 5)}  # steps: five evaluations, which choose RUN/best",
    ]
    if layout == "voc":
        lines.append("  metric: voc12  # also VOC's own figure")
    return "\n".join(lines) + "\n"


def _why_backbone(place: str) -> str:
    return "the usual one" if place == "cuda" else "the smallest ResNet, for a CPU; resnet50 on a GPU"


def _why_ratios(ratios: list[float], seen: Measured) -> str:
    low, high = np.quantile(seen.heights / seen.widths, (0.1, 0.9))
    spread = f"height over width; 80 % of the objects have {low:.2f} to {high:.2f}"
    return f"{spread}; the default" if ratios == list(USUAL_RATIOS) else spread


def _why_side(small: float, scale: float, side: int, seen: Measured, place: str) -> str:
    text = (
        f"pixels; images have {seen.short_side:.0f}, and a tenth of the objects less than {small:.0f}, which become"
        f" {small * scale:.0f}"
    )
    if place == "cpu" and side == CPU_SHORT_SIDE:
        text += "; larger on a GPU"
    return text


def _quoted(path: Path) -> str:
    """Text of YAML, which is that of JSON, whatever characters a path has."""
    return json.dumps(str(path), ensure_ascii=False)


def _list(values: list[float]) -> str:
    return f"[{', '.join(f'{value:g}' for value in values)}]"


def _plain(text: str) -> str:
    """Text of one line of a comment."""
    return printable(text)
