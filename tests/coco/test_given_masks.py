"""What is known of a polygon before its image is."""

from __future__ import annotations

import json

import msgspec
import pytest

from resdet.coco.given_masks import parse_masks


@pytest.mark.parametrize(
    ("width", "height", "wide"), [(4, 4, False), (5, 5, True), (3, 30, True), (1, 100, False), (4.4, 4, True)]
)
def test_a_polygon_is_wide_if_its_area_is_larger_than_its_perimeter(width: float, height: float, *, wide: bool) -> None:
    """A square of 4 pixels has 16 of both; 4.4 by 4 pixels have an area of 17.6 and a perimeter of 16.8."""
    for moved in (0, 7.2, 600):
        around = [(0, 0), (width, 0), (width, height), (0, height)]
        polygon = [moved + side for corner in around for side in corner]
        (found,) = parse_masks([msgspec.Raw(json.dumps([polygon]).encode())]).wide.tolist()
        assert found == wide
