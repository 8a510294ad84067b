"""The transforms and presets that `data.augment.transforms` can name, and the list that a config makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from resdet.config import merged
from resdet.config.declare import Group, key
from resdet.data.augment import library
from resdet.data.augment.draw import Draw, Transform
from resdet.data.augment.library import LibraryTransform
from resdet.data.augment.scene import Scene
from resdet.data.augment.several import CopyPaste, Mixup, Mosaic
from resdet.data.augment.shapes import Masks
from resdet.data.augment.single import (
    ColourJitter,
    Expand,
    HorizontalFlip,
    LargeScaleJitter,
    MinIoUCrop,
    ShortSide,
    VerticalFlip,
)
from resdet.data.images.transforms import PIXEL_CHANGES, PixelChange
from resdet.errors import UserError, did_you_mean

KEY = "data.augment.transforms"
Row = Mapping[str, Mapping[str, Any]]  # one name and its arguments

TRANSFORMS: dict[str, type[Group]] = {
    "short_side": ShortSide,
    "large_scale_jitter": LargeScaleJitter,
    "min_iou_crop": MinIoUCrop,
    "expand": Expand,
    "horizontal_flip": HorizontalFlip,
    "vertical_flip": VerticalFlip,
    "mosaic": Mosaic,
    "mixup": Mixup,
    "copy_paste": CopyPaste,
    "colour_jitter": ColourJitter,
}

# Lists that a config names in one line. Sizes follow data.augment.short_side and max_side.
PRESETS: dict[str, list[dict[str, dict[str, Any]]]] = {
    "light": [
        {"short_side": {}},
        {"horizontal_flip": {}},
        {"colour_jitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.02}},
    ],
    # Detectron2's: 640, 672, ..., 800 where data.augment.short_side is 800, and a flip
    "standard": [
        {"short_side": {"factors": [0.8, 0.84, 0.88, 0.92, 0.96, 1.0]}},
        {"horizontal_flip": {}},
    ],
    # Ghiasi et al. 2021, and Detectron2's new baselines
    "lsj": [
        {"large_scale_jitter": {}},
        {"horizontal_flip": {}},
    ],
    # as ultralytics trains YOLO; data.augment.close_mix ends mosaic and mixup as its close_mosaic does
    "heavy": [
        {"mosaic": {}},
        {"mixup": {"p": 0.1}},
        {"horizontal_flip": {}},
        {"colour_jitter": {"brightness": 0.4, "contrast": 0.0, "saturation": 0.7, "hue": 0.015, "p": 1.0}},
    ],
}


@dataclass(frozen=True)
class PixelRow:
    """A row of PIXEL_CHANGES as a transform."""

    name: str
    change: PixelChange
    p: float
    where: str
    keeps_size: bool = True

    def __call__(self, scene: Scene, draw: Draw) -> Scene:
        if scene.image is None:
            return scene
        changed = self.change(scene.image, draw.generator)
        if changed.shape != scene.image.shape or changed.dtype != np.uint8:
            raise UserError(
                f"{self.where}: {self.name} made of an image of shape {scene.image.shape}, uint8, one of shape "
                f"{changed.shape}, {changed.dtype}; a pixel change leaves both as they are"
            )
        return replace(scene, image=changed)


@dataclass
class _PixelArguments(Group):
    p: float = key(0.5, ge=0, le=1, help="probability")


def transforms_of(rows: Sequence[Row], masks: Masks) -> list[tuple[str, Transform]]:
    """The transforms that the rows name, presets written out, each with its name.

    Raises UserError, one line with the place in the list, for an unknown name or argument or a value out of bounds.
    """
    return [(name, _transform(name, arguments, where, masks)) for where, name, arguments in _written_out(rows)]


def _written_out(rows: Sequence[Row]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for place, row in enumerate(rows):
        ((name, arguments),) = row.items()
        where = f"{KEY}[{place}]"
        if name not in PRESETS:
            yield where, name, arguments
        elif arguments:
            raise UserError(f"{where}: the preset {name} takes no arguments; write its transforms out to change them")
        else:
            for inner in PRESETS[name]:
                yield where, *next(iter(inner.items()))


def _transform(name: str, arguments: Mapping[str, Any], where: str, masks: Masks) -> Transform:
    if name in TRANSFORMS:
        return merged(TRANSFORMS[name](), dict(arguments), f"{where}.{name}")  # pyright: ignore[reportReturnType]
    if name in library.NAMES or name in library.REFUSED:
        return LibraryTransform(name, arguments, masks, where)
    if name in PIXEL_CHANGES:
        p = merged(_PixelArguments(), dict(arguments), f"{where}.{name}").p
        return PixelRow(name, PIXEL_CHANGES[name], p, where)
    known = [*PRESETS, *TRANSFORMS, *PIXEL_CHANGES, *sorted(library.NAMES)]
    hint = did_you_mean(name, known)
    if "did you mean" not in hint:
        hint = f"; known: {', '.join([*PRESETS, *TRANSFORMS, *PIXEL_CHANGES])}, and transforms of albumentations"
    raise UserError(f"{where}: {name} is not known{hint}")
