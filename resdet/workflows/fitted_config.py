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
from resdet.ops.array_boxes import best_anchor_iou
from resdet.text import first_few, printable

SMALL = 24.0  # pixels that a small object (a tenth are smaller) should have after resizing
SHORT_SIDES = (256, 800)  # pixels: the smallest and the largest that are suggested
CPU_SHORT_SIDE = 480  # pixels: a CPU needs minutes for what a GPU does in seconds
FIRST_SIZES = (8.0, 16.0, 32.0, 64.0)  # of the finest level; each further level has twice the size
LEVELS = 5
FOUND = 0.5  # overlap with an anchor of the same centre above which an object counts as covered
WORTH = 0.01  # a share of objects for which the default anchors are given up
USUAL_RATIOS = (0.5, 1.0, 2.0)
MOST_MEASURED = 50_000  # objects: more do not change the shares
MOST_USUAL = 80  # objects of an image, from which on the default of 100 detections may be too few
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
    text = _text(folder, layout, train, len(val), measured(train), this_place(device))
    _: Config = config_from_yaml(text, "the suggested config")
    return text


def measured(train: CocoDataset) -> Measured:
    """The sizes of images and, of many objects at even distances, of objects in a training set."""
    boxes = train.boxes[~train.crowd]
    boxes = boxes[:: max(1, len(boxes) // MOST_MEASURED)].astype(np.float64)
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
    return float((best_anchor_iou(widths, heights, sizes, ratios) >= FOUND).mean())


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


@dataclass(frozen=True)
class Suggestion:
    """What fits a training set and a machine, with the shares of objects that anchors cover: these, and the default."""

    short_side: int
    scale: float  # from pixels of the median image to those after resizing
    max_side: int
    sizes: list[float]
    ratios: list[float]
    covered: float
    usually_covered: float
    detections: int | None  # an image; None: the default suffices
    batch: int
    epochs: int
    steps: int


def suggested(seen: Measured, place: str) -> Suggestion:
    """The sizes and the length for a training set, on a "cpu" or a "cuda" machine."""
    side = short_side_for(seen, place)
    scale = side / seen.short_side
    widths, heights = seen.widths * scale, seen.heights * scale
    sizes, ratios, share = anchors_for(widths, heights)
    batch = min(BATCH[place], seen.images)
    epochs = int(np.clip(round(IMAGES_SEEN[place] / seen.images), *EPOCHS[place]))
    return Suggestion(
        short_side=side,
        scale=scale,
        max_side=32 * int(np.ceil(side * max(seen.long_over_short, 1.0) / 32)),
        sizes=sizes,
        ratios=ratios,
        covered=share,
        usually_covered=covered(widths, heights, [32.0 * 2**level for level in range(LEVELS)], list(USUAL_RATIOS)),
        detections=round(1.25 * seen.most_objects) if seen.most_objects > MOST_USUAL else None,
        batch=batch,
        epochs=epochs,
        steps=max(1, epochs * seen.images // batch),
    )


def this_place(device: str = "auto") -> str:
    """What a training on `device` uses here, "cuda" or "cpu"."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def reasons(seen: Measured, fit: Suggestion, place: str) -> dict[str, tuple[str, str]]:
    """By key: the suggested value and why, in one line each."""
    rows = {
        "data.augment.short_side": (f"[{fit.short_side}]", _why_side(seen, fit, place)),
        "model.anchors.sizes": (
            _list(fit.sizes),
            f"one a level; {fit.covered:.1%} of the objects have an anchor that overlaps {FOUND} or more,"
            f" {fit.usually_covered:.1%} with the default 32 to 512",
        ),
        "model.anchors.ratios": (_list(fit.ratios), _why_ratios(fit.ratios, seen)),
        "train.epochs": (
            f"{fit.epochs}",
            f"{fit.steps:,} steps, {fit.epochs * seen.images:,} images; more of them help while the AP still rises",
        ),
    }
    if fit.detections is not None:
        rows["model.box_head.detections"] = (
            f"{fit.detections}", f"kept an image; one image has {seen.most_objects} objects"
        )  # fmt: skip
    return rows


def _text(folder: Path, layout: str, train: CocoDataset, val_images: int, seen: Measured, place: str) -> str:
    fit = suggested(seen, place)
    why = reasons(seen, fit, place)
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
        f"# {seen.images:,} training images with {int((~train.crowd).sum()):,} objects, {val_images:,} val images; the"
        f" rarest class, {_plain(rarest[0])}, has {rarest[1]:,}.",
        "model:",
        "  backbone:",
        f"    name: {backbone}  # {_why_backbone(place)}",
        "    weights: IMAGENET1K_V1  # torchvision's, fetched at the first use; null trains from scratch, which takes"
        " far longer",
    ]
    lines += [
        "  anchors:",
        _line("    sizes", why["model.anchors.sizes"]),
        _line("    ratios", why["model.anchors.ratios"]),
    ]
    if fit.detections is not None:
        lines += ["  box_head:", _line("    detections", why["model.box_head.detections"])]
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
        _line("    short_side", why["data.augment.short_side"]),
        f"    test_short_side: {fit.short_side}  # as in training",
        f"    max_side: {fit.max_side}  # long enough for all but 1 % of the images, whose sides differ by up to"
        f" {seen.long_over_short:.2f} times",
        "train:",
        _line("  epochs", why["train.epochs"]),
        f"  batch_size: {fit.batch}  # images an update; optim.lr is scaled to it. Half of it if memory does not"
        " suffice",
        f"  checkpoint_every: {max(1, fit.steps // 5)}  # five in the run",
        "optim:",
        f"  warmup_steps: {min(1000, max(1, fit.steps // 10))}  # a tenth of the steps, at most 1000",
        "eval:",
        f"  every: {max(1, fit.steps // 5)}  # steps: five evaluations, which choose RUN/best",
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


def _why_side(seen: Measured, fit: Suggestion, place: str) -> str:
    small = float(np.quantile(seen.roots, 0.1))
    text = (
        f"pixels; images have {seen.short_side:.0f}, and a tenth of the objects less than {small:.0f}, which become"
        f" {small * fit.scale:.0f}"
    )
    return f"{text}; larger on a GPU" if place == "cpu" and fit.short_side == CPU_SHORT_SIDE else text


def _line(key: str, suggestion: tuple[str, str]) -> str:
    return f"{key}: {suggestion[0]}  # {suggestion[1]}"


def _quoted(path: Path) -> str:
    """Text of YAML, which is that of JSON, whatever characters a path has."""
    return json.dumps(str(path), ensure_ascii=False)


def _list(values: list[float]) -> str:
    return f"[{', '.join(f'{value:g}' for value in values)}]"


def _plain(text: str) -> str:
    """Text of one line of a comment."""
    return printable(text)
