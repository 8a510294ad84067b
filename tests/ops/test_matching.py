import pytest
import torch
from torch.testing import assert_close
from torchvision.models.detection._utils import Matcher as TorchvisionMatcher
from torchvision.ops import box_iou

from resdet.ops import matching
from resdet.ops.matching import Matcher, Matches


def match(matcher: Matcher, candidates: list[list[float]], boxes: list[list[float]], crowd: list[bool]) -> Matches:
    shared, truth = torch.tensor([candidates]).float(), torch.tensor([boxes]).float()
    return matcher(shared, truth, torch.tensor([crowd]), torch.ones(1, len(boxes), dtype=torch.bool))


def test_thresholds_split_candidates_into_positive_ignored_and_negative() -> None:
    candidates = [[0.0, 0, 10, 10], [0, 0, 10, 20], [50, 50, 60, 60]]  # IoU 1, 0.5 and 0
    matches = match(Matcher(0.7, 0.3), candidates, [[0, 0, 10, 10]], [False])
    assert matches.positive.tolist() == [[True, False, False]]
    assert matches.negative.tolist() == [[False, False, True]]


def test_low_quality_keeps_the_best_candidate_of_every_object() -> None:
    candidates = [[0.0, 0, 10, 40], [0, 0, 10, 80], [50, 50, 60, 60]]  # IoU 0.25, 0.125 and 0
    assert not match(Matcher(0.7, 0.3), candidates, [[0, 0, 10, 10]], [False]).positive.any()
    matches = match(Matcher(0.7, 0.3, low_quality=True), candidates, [[0, 0, 10, 10]], [False])
    assert matches.positive.tolist() == [[True, False, False]]


def test_a_crowd_is_never_matched_and_what_lies_in_it_is_left_out() -> None:
    candidates = [[10.0, 10, 20, 20], [95, 95, 105, 105]]  # inside the crowd; a quarter inside
    matches = match(Matcher(0.5, 0.5, low_quality=True), candidates, [[0, 0, 100, 100]], [True])
    assert not matches.positive.any()
    assert matches.negative.tolist() == [[False, True]]


def test_without_objects_all_candidates_are_negative() -> None:
    matcher = Matcher(0.5, 0.5, low_quality=True)
    none = torch.zeros(2, 8, dtype=torch.bool)
    matches = matcher(torch.rand(1, 5, 4), torch.zeros(2, 8, 4), none, none)
    assert matches.negative.all()
    assert not matches.positive.any()


@pytest.mark.parametrize("low_quality", [True, False])
def test_without_candidates_nothing_is_matched(*, low_quality: bool) -> None:
    one = torch.ones(2, 1, dtype=torch.bool)
    truth = torch.tensor([[[0.0, 0, 10, 10]], [[5.0, 5, 9, 9]]])
    for images in (1, 2):
        matches = Matcher(0.5, 0.5, low_quality=low_quality)(torch.zeros(images, 0, 4), truth, ~one, one)
        assert [value.shape for value in vars(matches).values()] == [(2, 0)] * 3


@pytest.mark.parametrize("low_quality", [True, False])
@pytest.mark.parametrize("chunk", [1, 3, 16])
def test_matches_equal_torchvision_whatever_the_chunk(
    monkeypatch: pytest.MonkeyPatch, chunk: int, *, low_quality: bool
) -> None:
    monkeypatch.setattr(matching, "CHUNK", chunk)
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, 200, 2, generator=generator) * 80
    candidates = torch.cat([corner, corner + 5 + torch.rand(2, 200, 2, generator=generator) * 40], dim=-1)
    boxes = candidates[:, :7] + torch.rand(2, 7, 4, generator=generator) * 8
    valid = torch.ones(2, 7, dtype=torch.bool)
    matches = Matcher(0.6, 0.3, low_quality=low_quality)(candidates, boxes, ~valid, valid)
    oracle = TorchvisionMatcher(0.6, 0.3, allow_low_quality_matches=low_quality)
    for image in range(2):
        expected = oracle(box_iou(boxes[image], candidates[image]))
        assert_close(matches.positive[image], expected >= 0)
        assert_close(matches.negative[image], expected == -1)
        assert_close(matches.index[image][expected >= 0], expected[expected >= 0])


def test_the_thresholds_themselves_are_positive_and_not_negative() -> None:
    candidates = [[0.0, 0, 10, 10], [0, 0, 10, 20], [0, 0, 10, 40]]  # IoU 1, 0.5 and 0.25, exactly
    matches = match(Matcher(0.5, 0.25), candidates, [[0, 0, 10, 10]], [False])
    assert matches.positive.tolist() == [[True, True, False]]
    assert not matches.negative.any()
    matches = match(Matcher(0.9, 0.5, background_iou_low=0.25), candidates, [[0, 0, 10, 10]], [False])
    assert matches.negative.tolist() == [[False, False, True]]


def test_no_candidate_is_an_example_of_both_kinds() -> None:
    matches = match(Matcher(0.7, 0.3, low_quality=True), [[0.0, 0, 10, 80]], [[0, 0, 10, 10]], [False])
    assert matches.positive.tolist() == [[True]]
    assert matches.negative.tolist() == [[False]]


def test_seven_tenths_of_a_candidate_in_a_crowd_leave_it_out() -> None:
    candidates = [[0.0, 35, 10, 135], [0, 25, 10, 125]]  # 0.65 and 0.75 of their area
    matches = match(Matcher(0.5, 0.5), candidates, [[0, 0, 10, 100]], [True])
    assert matches.negative.tolist() == [[True, False]]


def test_padding_is_neither_an_object_nor_a_crowd() -> None:
    truth = torch.tensor([[[0.0, 0, 10, 10], [50, 50, 90, 90]]])
    padding, crowd = torch.zeros(1, 2, dtype=torch.bool), torch.tensor([[False, True]])
    candidates = torch.tensor([[[0.0, 0, 10, 10], [55, 55, 80, 80]]])
    matches = Matcher(0.5, 0.5, low_quality=True)(candidates, truth, crowd, padding)
    assert matches.negative.all()
    assert not matches.positive.any()


def test_of_equal_objects_in_two_portions_the_first_is_matched_and_a_crowd_of_the_first_portion_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(matching, "CHUNK", 1)
    truth: list[list[float]] = [[0, 0, 10, 10], [50, 50, 90, 90], [0, 0, 10, 10]]
    matches = match(Matcher(0.5, 0.5), [[0.0, 0, 10, 10], [55, 55, 80, 80]], truth, [False, True, False])
    assert matches.index[0, 0] == 0
    assert matches.negative.tolist() == [[False, False]]
