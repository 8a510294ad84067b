"""Tags stand beside their boxes: laws over random boxes, and places from a pencil."""

from __future__ import annotations

import numpy as np
import pytest

from resdet.drawing.tags import Rect, places


def common(a: Rect, b: Rect) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, wide) * max(0.0, high)


def area(rect: Rect) -> float:
    return (rect[2] - rect[0]) * (rect[3] - rect[1])


@pytest.mark.parametrize("count", [1, 5, 300])
def test_a_tag_covers_neither_its_box_nor_another_tag_nor_most_of_another_box(count: int) -> None:
    rng = np.random.default_rng(count)
    corners = rng.uniform(0, (600, 400), (count, 2))
    boxes = [(x, y, min(640.0, x + w), min(480.0, y + h)) for (x, y), (w, h) in
             zip(corners.tolist(), rng.exponential(60, (count, 2)).tolist(), strict=True)]  # fmt: skip
    sizes = [(18.0, float(width)) for width in rng.integers(40, 160, count)]
    spots = places(boxes, sizes, 640, 480)
    placed = [spot for spot in spots if spot is not None]
    assert placed
    for i, spot in enumerate(spots):
        if spot is None:
            continue
        assert (spot[3] - spot[1], spot[2] - spot[0]) == sizes[i]
        assert min(spot[:2]) >= 0
        assert spot[2] <= 640
        assert spot[3] <= 480
        assert common(spot, boxes[i]) <= 0.5
        assert all(common(spot, box) <= area(box) / 2 + 0.5 for box in boxes)
        assert sum(common(spot, other) for other in placed) == pytest.approx(area(spot), abs=0.5 * len(placed))


@pytest.mark.parametrize(
    ("box", "spot"),
    [
        ((100, 50, 200, 150), (100, 30, 160, 50)),  # above
        ((100, 10, 200, 150), (100, 150, 160, 170)),  # there is no room: below
        ((280, 50, 299, 60), (240, 30, 300, 50)),  # moved to the left at the right border
        ((100, 0, 200, 200), (200, 0, 260, 20)),  # neither above nor below: beside
        ((150, 0, 300, 200), (90, 0, 150, 20)),
        ((0, 0, 300, 200), None),  # the box fills the picture
        ((30, 10, 280, 190), None),
    ],
)
def test_the_first_place_that_is_free(box: Rect, spot: Rect | None) -> None:
    assert places([box], [(20, 60)], 300, 200) == [spot]


def test_a_tag_avoids_a_small_object_above() -> None:
    """Above the box is another that the tag would hide; of the box itself there is no tag."""
    assert places([(100, 50, 200, 150), (110, 32, 130, 48)], [(20, 60)], 300, 200) == [(100, 150, 160, 170)]


def test_nothing_has_no_tag() -> None:
    assert places([], [], 300, 200) == []
