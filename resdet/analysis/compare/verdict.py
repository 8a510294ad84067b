"""Decides whether one detector is better than another, from both sources of variation: the images and the training
seeds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from resdet.evaluation.analysis.bootstrap import Difference

FEWEST_IMAGES = 30  # with fewer images, resampling tells too little about unseen images
POWER = 0.84  # z of 80 %: the power at which an effect is called detectable

# Student's t at 97.5 %, by degrees of freedom from 1; larger numbers use the last value, which makes intervals too
# wide.
T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip

SIGNIFICANT, NOT_SIGNIFICANT = "significant", "not significant"
ONE_SEED, FEW_IMAGES, UNDEFINED = "undecided: one seed", "undecided: few images", "undefined"


@dataclass(frozen=True)
class SeedSpread:
    """What is known from the seeds about a difference of means: its standard error, and Student's t for a 95 % interval
    (Welch).
    """

    standard_error: float
    t: float

    @property
    def half_width(self) -> float:
        return self.t * self.standard_error


@dataclass(frozen=True)
class Verdict:
    """A difference against the first detector. `low` and `high` include both sources if there are two seeds or more;
    `detectable` is the smallest true difference that such a comparison would call significant in four of five cases.
    """

    word: str
    reason: str
    low: float | None
    high: float | None
    seed_low: float | None
    seed_high: float | None
    detectable: float | None


def seed_spread(first: Sequence[float], other: Sequence[float]) -> SeedSpread | None:
    """Welch's standard error and t of mean(other) - mean(first); None unless each has two seeds or more."""
    if min(len(first), len(other)) < 2:
        return None
    shares = [statistics.variance(values) / len(values) for values in (first, other)]
    total = sum(shares)
    if total == 0:
        return SeedSpread(0.0, T[-1])
    degrees = total**2 / sum(share**2 / (len(values) - 1) for share, values in zip(shares, (first, other), strict=True))
    return SeedSpread(math.sqrt(total), T[min(math.floor(degrees + 1e-9), len(T)) - 1])


def judge(difference: Difference, first: Sequence[float], other: Sequence[float], *, images: int) -> Verdict:
    """The difference is significant if the 95 % interval over both sources excludes 0.

    The interval over images (paired bootstrap) and the one over seeds (Welch's t) are joined by the root of the sum of
    the squares of their half-widths, on each side. No verdict of significance is given on fewer than FEWEST_IMAGES
    images or on a single seed, whose spread is unknown; a single seed is enough to find that a difference is not
    significant, because more seeds only widen the interval.

    Args:
        difference: the difference of the means over seeds, with its interval over images.
        first, other: the figure of each seed.
        images: the number of scored images.
    """
    value, low, high = difference.difference, difference.low, difference.high
    if value is None or low is None or high is None:
        return Verdict(UNDEFINED, "no ground truth of this kind", None, None, None, None, None)
    spread = seed_spread(first, other)
    if spread:
        low = value - math.hypot(max(value - low, 0.0), spread.half_width)
        high = value + math.hypot(max(high - value, 0.0), spread.half_width)
    excludes_zero = low > 0 or high < 0
    word, reason = _word(spread, images, excludes_zero=excludes_zero)
    return Verdict(
        word,
        reason,
        low,
        high,
        value - spread.half_width if spread else None,
        value + spread.half_width if spread else None,
        _detectable(difference, spread),
    )


def _word(spread: SeedSpread | None, images: int, *, excludes_zero: bool) -> tuple[str, str]:
    if images < FEWEST_IMAGES:
        return FEW_IMAGES, f"{images} images are too few for an interval over images; take {FEWEST_IMAGES} or more"
    if not excludes_zero:
        sources = "images and seeds" if spread else "images alone"
        return NOT_SIGNIFICANT, f"the 95 % interval over {sources} holds 0"
    if spread is None:
        return (
            ONE_SEED,
            "beyond what other images would change, but the spread over seeds is unknown; take --seeds 2 or more",
        )
    return SIGNIFICANT, "the 95 % interval over images and seeds excludes 0"


def _detectable(difference: Difference, spread: SeedSpread | None) -> float | None:
    """None if resampling changes nothing, as for detectors without detections: their variation is not informative."""
    over_images = difference.detectable or None
    if over_images is None or spread is None:
        return over_images
    return math.hypot(over_images, (spread.t + POWER) * spread.standard_error)
