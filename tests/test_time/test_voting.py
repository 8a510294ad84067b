"""Box voting, with a pencil."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from resdet.structures import Detections
from resdet.test_time.voting import vote


def found(*rows: tuple[list[float], float, int]) -> Detections:
    """One image: (box, score, label) each; a score of zero is padding."""
    boxes, scores, labels = (list(column) for column in zip(*rows, strict=True))
    score = torch.tensor([scores])
    return Detections(torch.tensor([boxes]), score, torch.tensor([labels]), score > 0)


ONE = ([0.0, 0.0, 10.0, 10.0], 0.9, 0)


def test_a_single_box_is_its_own_mean() -> None:
    assert_close(vote(found(ONE), found(ONE), iou=0.5), found(ONE))


def test_two_identical_boxes_agree() -> None:
    assert_close(vote(found(ONE), found(ONE, ONE), iou=0.5), found(ONE))


def test_the_mean_is_weighted_by_score() -> None:
    candidates = found(ONE, ([0.0, 0.0, 10.0, 12.0], 0.3, 0))
    voted = vote(found(ONE), candidates, iou=0.5)
    assert_close(voted.boxes, torch.tensor([[[0.0, 0.0, 10.0, (0.9 * 10 + 0.3 * 12) / 1.2]]]))
    assert_close(voted.scores, found(ONE).scores)


def test_other_classes_distant_boxes_and_padding_have_no_vote() -> None:
    other = ([0.0, 0.0, 10.0, 12.0], 0.8, 1)
    far = ([0.0, 6.0, 10.0, 16.0], 0.8, 0)  # overlaps by 40 of 160
    padding = ([0.0, 0.0, 10.0, 11.0], 0.0, 0)
    assert_close(vote(found(ONE), found(ONE, other, far, padding), iou=0.5), found(ONE))


def test_what_is_not_finite_in_a_candidate_that_is_not_valid_has_no_vote() -> None:
    broken = ([float("nan")] * 4, float("nan"), 0)
    assert_close(vote(found(ONE), found(ONE, broken), iou=0.5), found(ONE))


def test_the_threshold_itself_votes() -> None:
    half = ([0.0, 0.0, 10.0, 5.0], 0.9, 0)  # IoU 0.5
    assert_close(vote(found(ONE), found(ONE, half), iou=0.5).boxes[0, 0, 3], torch.tensor(7.5))


def test_padding_stays_padding_in_any_number_of_detections() -> None:
    none = ([0.0, 0.0, 0.0, 0.0], 0.0, 0)
    detections = found(*[ONE] * 20, *[none] * 20)
    assert_close(vote(detections, found(ONE, none), iou=0.5), detections)
