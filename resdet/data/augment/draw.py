"""What a transform of a list is, and what it draws from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from resdet.data.augment.scene import Scene
from resdet.data.augment.shapes import Masks


@runtime_checkable
class Transform(Protocol):
    """A change of a scene: a pure function of the scene and what it draws.

    It happens with probability `p`. `keeps_size`: the image has the same size afterwards, whatever is drawn. Optional
    attributes: `reads_boxes`, what is drawn depends on the boxes; `images`, how many are put together, and `closed()`,
    the transform that takes its place when that has ended (`data.augment.close_mix`); `needs_masks`.
    A scene without pixels (`scene.image is None`) has to get the same size and boxes as one with pixels.
    """

    @property
    def p(self) -> float: ...

    @property
    def keeps_size(self) -> bool: ...

    def __call__(self, scene: Scene, draw: Draw) -> Scene: ...


def reads_boxes(transform: Transform) -> bool:
    return getattr(transform, "reads_boxes", False)


def images_of(transform: Transform) -> int:
    """How many images a transform puts together."""
    return getattr(transform, "images", 1)


def closed(transform: Transform) -> Transform:
    """The transform in the last part of a run: itself, if it does not put images together."""
    return transform if images_of(transform) == 1 else transform.closed()  # pyright: ignore[reportAttributeAccessIssue]


def needs_masks(transform: Any) -> bool:
    return getattr(transform, "needs_masks", False)


@dataclass(frozen=True)
class Draw:
    """What a transform draws from: a generator of its own, and other images. `partner(k)` is the k-th of them, after
    the transforms that come before in the list. `short_sides` and `max_side` are those of `data.augment`.
    """

    generator: np.random.Generator
    partner: Callable[[int], Scene]
    masks: Masks
    short_sides: Sequence[int]
    max_side: int

    def uniform(self, limits: Sequence[float]) -> float:
        return float(self.generator.uniform(limits[0], limits[1]))

    def side(self, size: int | None) -> int:
        """A size in pixels; where the config gives none, the largest short side."""
        return max(self.short_sides) if size is None else size
