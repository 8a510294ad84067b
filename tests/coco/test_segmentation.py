"""Groups of rows packed one behind another."""

from __future__ import annotations

import numpy as np

from resdet.coco.groups import take_groups


def test_taking_groups_packs_them_in_the_order_asked_for() -> None:
    offsets, members = take_groups(np.array([0, 2, 2, 5]), np.array([2, 1, 0]))
    assert offsets.tolist() == [0, 3, 3, 5]
    assert members.tolist() == [2, 3, 4, 0, 1]
