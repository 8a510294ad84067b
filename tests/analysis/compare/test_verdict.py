"""When a difference is called significant, with a pencil."""

from __future__ import annotations

import math

import pytest

from resdet.analysis.compare.verdict import (
    FEW_IMAGES,
    NOT_SIGNIFICANT,
    ONE_SEED,
    SIGNIFICANT,
    UNDEFINED,
    judge,
    seed_spread,
)
from resdet.evaluation.analysis.bootstrap import Difference


def over_images(value: float, half_width: float) -> Difference:
    error = half_width / 1.96
    return Difference(value, value - half_width, value + half_width, None, None, None, None, error, 2.8 * error)


def test_welchs_t_with_a_pencil() -> None:
    """Variances 0.0001 and 0.0001 over three seeds each: an error of sqrt(2 * 0.0001 / 3), and 4 degrees of freedom."""
    spread = seed_spread([0.49, 0.50, 0.51], [0.59, 0.60, 0.61])
    assert spread is not None
    assert spread.standard_error == pytest.approx(math.sqrt(2e-4 / 3))
    assert spread.t == 2.776


def test_degrees_of_freedom_are_those_of_the_one_that_varies() -> None:
    spread = seed_spread([0.5, 0.5], [0.49, 0.51])
    assert spread is not None
    assert spread.t == 12.706
    assert spread.standard_error == pytest.approx(0.01)


def test_a_single_seed_says_nothing_of_the_spread() -> None:
    assert seed_spread([0.5], [0.6, 0.61]) is None


def test_images_and_seeds_must_both_be_left_behind() -> None:
    """Half-widths of 0.03 over images and 4.303 x 0.01 over seeds join to 0.0525."""
    first, other = [0.5, 0.5, 0.5], [0.56 + d for d in (-math.sqrt(3e-4), 0, math.sqrt(3e-4))]
    verdict = judge(over_images(0.06, 0.03), first, other, images=500)
    joined = math.hypot(0.03, 4.303 * 0.01)
    assert verdict.word == SIGNIFICANT
    assert (verdict.low, verdict.high) == (pytest.approx(0.06 - joined), pytest.approx(0.06 + joined))
    assert (verdict.seed_low, verdict.seed_high) == (pytest.approx(0.06 - 0.04303), pytest.approx(0.06 + 0.04303))
    assert judge(over_images(0.05, 0.03), first, other, images=500).word == NOT_SIGNIFICANT
    assert judge(over_images(-0.06, 0.03), first, other, images=500).word == SIGNIFICANT


def test_one_seed_can_say_no_but_not_yes() -> None:
    assert judge(over_images(0.06, 0.03), [0.5], [0.56], images=500).word == ONE_SEED
    assert judge(over_images(0.02, 0.03), [0.5], [0.52], images=500).word == NOT_SIGNIFICANT


def test_few_images_carry_no_verdict() -> None:
    verdict = judge(over_images(0.06, 0.0), [0.5, 0.5], [0.56, 0.56], images=29)
    assert verdict.word == FEW_IMAGES
    assert "29 images" in verdict.reason


def test_equal_detectors_do_not_differ() -> None:
    verdict = judge(over_images(0.0, 0.0), [0.5, 0.5], [0.5, 0.5], images=500)
    assert (verdict.word, verdict.detectable) == (NOT_SIGNIFICANT, None)


def test_what_has_no_ground_truth_has_no_verdict() -> None:
    undefined = Difference(None, None, None, None, None, None, None, None, None)
    assert judge(undefined, [], [], images=500).word == UNDEFINED


def test_seeds_raise_what_can_be_detected() -> None:
    """2.8 errors over images; over seeds t + 0.84 of them; joined."""
    first, other = [0.5, 0.5, 0.5], [0.56 + d for d in (-math.sqrt(3e-4), 0, math.sqrt(3e-4))]
    detectable = judge(over_images(0.06, 0.0196), first, other, images=500).detectable
    assert detectable == pytest.approx(math.hypot(0.028, (4.303 + 0.84) * 0.01))
    assert judge(over_images(0.06, 0.0196), [0.5], [0.56], images=500).detectable == pytest.approx(0.028)
