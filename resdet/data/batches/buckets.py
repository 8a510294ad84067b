"""A few shapes that training batches are padded to, so that a compiler meets few shapes (`data.shape_buckets`)."""

from __future__ import annotations

from collections.abc import Sequence

from resdet.config import AugmentConfig
from resdet.data.batches.collate import SMALLEST_SIDE, round_up
from resdet.errors import UserError

Shape = tuple[int, int]  # height and width in pixels


def buckets_of(augment: AugmentConfig, divisor: int, count: int | None) -> tuple[Shape, ...]:
    """The buckets of training batches, none if `count` is None (`data.shape_buckets`).

    Raises UserError for a list of transforms, whose sizes do not follow from the keys.
    """
    if count is None:
        return ()
    if augment.transforms is not None:
        raise UserError(
            f"data.shape_buckets={count} follows from data.augment.short_side and max_side, which"
            " data.augment.transforms replaces; set one of them to null"
        )
    return buckets(max(augment.short_side), augment.max_side, divisor, count)


def buckets(short_side: int, max_side: int, divisor: int, count: int) -> tuple[Shape, ...]:
    """At most `count` shapes, the smallest area first, of which one holds any batch of images resized to them.

    Resizing makes the short sides of nearly all images equal, so that side is always the largest one, and the long
    side is one of count / 2 lengths at equal distances: landscape, the same upright, and a square for a batch of both.
    """
    sides = (max(SMALLEST_SIDE, side) for side in (min(short_side, max_side), max_side))
    short, long = (round_up(side, divisor) for side in sides)
    steps = count // 2 - 1
    lengths = {round_up(short + -(-(long - short) * i // steps), divisor) for i in range(steps + 1)}
    shapes = {(short, length) for length in lengths} | {(length, short) for length in lengths} | {(long, long)}
    return tuple(sorted(shapes, key=lambda shape: (shape[0] * shape[1], shape)))


def bucket(shape: Shape, among: Sequence[Shape]) -> Shape:
    """The first, which is the smallest, that holds `shape`."""
    return next(each for each in among if each[0] >= shape[0] and each[1] >= shape[1])
