"""The uncertainty of COCO's figures: a paired bootstrap over images, for any number of detectors.

Images are drawn with replacement, with the same sample for every detector (Efron and Tibshirani 1993); an image drawn
twice counts twice, with its objects and its detections. The figures for such weights are exact, because detections are
matched within an image: only the sums over the ranking of all images are computed again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from resdet.coco.ground_truth import GroundTruth
from resdet.coco.results import CocoResults
from resdet.errors import UserError
from resdet.evaluation.analysis.curves import AP50, AP75, RECALLS, TINY, by_score
from resdet.evaluation.analysis.matches import AREAS, THRESHOLDS, Matches, match, overlapping_pairs
from resdet.evaluation.backends import Problem
from resdet.evaluation.coco import coco_problem

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
MAX_DETECTIONS = 100
LEVEL = 0.95  # of the intervals
# z(.975) + z(.8) = 1.96 + 0.84: an effect of so many standard errors is significant at the 5 % level in 80 % of such
# sets.
DETECTABLE = 2.8
ELEMENTS_AT_ONCE = 8_000_000  # detections times resamples: limits the memory


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval and standard error over images; None where it is undefined.

    The interval is the basic one, [2 v - q(.975), 2 v - q(.025)] for value v and quantiles q of the resamples, kept
    within [0, 1]. AP is higher on resamples, which repeat images, than on the set they come from; the percentile
    interval would shift in the wrong direction (on simulated sets of 100 images it contained the true APs in 79 % of
    cases, the basic one in 90 %; tests/evaluation/analysis/test_coverage.py).
    """

    value: float | None
    low: float | None
    high: float | None
    standard_error: float | None


@dataclass(frozen=True)
class Difference:
    """A detector's figure minus the first detector's, and as a share of the first's (`relative`), with 95 % intervals.

    These are percentile intervals, because the shift of the figures on resamples cancels in their difference. `p` is
    two-sided: twice the share of resamples, with one added to each side, in which the difference is zero or has the
    other sign. `detectable` is the difference that this set would show with a power of 80 % at the 5 % level: 2.8
    standard errors.
    """

    difference: float | None
    low: float | None
    high: float | None
    relative: float | None
    relative_low: float | None
    relative_high: float | None
    p: float | None
    standard_error: float | None
    detectable: float | None

    @property
    def significant(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Bootstrap:
    """By detector and figure ("AP", ...): intervals, and for all but the first the difference to the first."""

    images: int
    resamples: int
    seed: int
    detectors: dict[str, dict[str, Interval]]
    differences: dict[str, dict[str, Difference]]

    def to_json(self) -> dict[str, Any]:
        """The same in plain dicts, with `significant` beside each difference."""
        plain = asdict(self)
        for name, figures in self.differences.items():
            for figure, difference in figures.items():
                plain["differences"][name][figure]["significant"] = difference.significant
        return plain


def paired_bootstrap(
    ground_truth: GroundTruth,
    detectors: Mapping[str, Sequence[CocoResults]],
    *,
    iou_type: str = "bbox",
    resamples: int = 1000,
    seed: int = 0,
    image_ids: Sequence[int] | None = None,
) -> Bootstrap:
    """Compares detectors on the same images; each has the results of one or more training seeds.

    A detector's figure is the mean over its seeds, within each resample. The intervals include only the variation over
    images, not the variation over seeds. With one set of results per detector this is the ordinary paired bootstrap.
    Raises UserError as `evaluate_coco` does, and if there is nothing to compare.
    """
    if not detectors or not all(detectors.values()):
        raise UserError("each detector to be compared needs the results of at least one run")
    if resamples < 1:
        raise UserError(f"resamples={resamples} must be 1 or more")
    samples: dict[str, Float64[np.ndarray, "F R1"]] = {}
    weights = None
    for name, runs in detectors.items():
        by_seed = []
        for results in runs:
            problem = coco_problem(
                ground_truth, results, iou_type=iou_type, image_ids=image_ids, limits=(MAX_DETECTIONS,)
            )
            weights = image_weights(len(problem.sizes), resamples, seed) if weights is None else weights
            by_seed.append(weighted_figures(problem, match(problem, overlapping_pairs(problem, least=0.5)), weights))
        samples[name] = np.mean(by_seed, axis=0)
    assert weights is not None
    first, *others = samples
    return Bootstrap(
        images=weights.shape[1],
        resamples=resamples,
        seed=seed,
        detectors={name: dict(zip(FIGURES, map(_interval, values), strict=True)) for name, values in samples.items()},
        differences={
            name: dict(zip(FIGURES, map(_difference, samples[first], samples[name]), strict=True)) for name in others
        },
    )


def image_weights(images: int, resamples: int, seed: int) -> Float32[np.ndarray, "R1 I"]:
    """The number of copies of each image in each resample; the first row is the data set itself."""
    drawn = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)
    return np.concatenate([np.ones((1, images)), drawn]).astype(np.float32)  # whole numbers are exact


def weighted_figures(
    problem: Problem, matches: Matches, weights: Float32[np.ndarray, "R I"]
) -> Float64[np.ndarray, "F R"]:
    """FIGURES where image i counts weights[r, i] times (whole numbers), NaN where undefined; for each row of weights.

    With weights of one the figures are those of `evaluate_coco`. Copies of a detection are adjacent in the ranking.
    """
    rows = len(weights)
    shape = (len(THRESHOLDS), len(AREAS), problem.num_categories, rows)
    ap, recall = np.full(shape, np.nan), np.full(shape, np.nan)
    image = problem.detections.image - 1
    for k in range(problem.num_categories):
        ranked = by_score(problem, k + 1)
        own = problem.truth.category == k + 1
        at_once = max(1, ELEMENTS_AT_ONCE // max(len(ranked), 1))
        for start in range(0, rows, at_once):
            part = slice(start, start + at_once)
            shares = weights[part][:, image[ranked]]
            for size in range(len(AREAS)):
                truth_image = problem.truth.image[own & ~matches.truth_ignored[:, size]] - 1
                objects = weights[part][:, truth_image].sum(axis=1)
                counted = ~matches.ignored[ranked, :, size]
                tally = _Tally.of(shares, counted[:, -1])
                for t in range(len(THRESHOLDS)):
                    values = tally.average_precision(matches.right[ranked, t, size], counted[:, t], objects)
                    ap[t, size, k, part], recall[t, size, k, part] = values
    by_size = [_mean(ap[:, size].reshape(-1, rows)) for size in range(len(AREAS))]
    at = [_mean(ap[t, 0]) for t in (AP50, AP75)]
    return np.stack([by_size[0], *at, *by_size[1:], _mean(recall[:, 0].reshape(-1, rows))])


@dataclass(frozen=True)
class _Tally:
    """Ranked detections with their weights `shares`, and the cumulative weights of the `usual` ones.

    The set of counted detections changes little between IoU thresholds, so this sum is computed once.
    """

    shares: Float32[np.ndarray, "R n"]
    usual: Bool[np.ndarray, " n"]
    running: Float32[np.ndarray, "R n"]

    @classmethod
    def of(cls, shares: Float32[np.ndarray, "R n"], usual: Bool[np.ndarray, " n"]) -> _Tally:
        return cls(shares, usual, np.cumsum(shares * usual, axis=1, dtype=np.float32))

    def average_precision(
        self, right: Bool[np.ndarray, " n"], counted: Bool[np.ndarray, " n"], objects: Float32[np.ndarray, " R"]
    ) -> tuple[Float64[np.ndarray, " R"], Float64[np.ndarray, " R"]]:
        """AP and final recall where `counted` detections are right or wrong; NaN where there are no objects.

        The envelope of precision changes only at correct detections, so it is evaluated only there.
        """
        defined = objects > 0
        places = np.flatnonzero(right)
        if not len(places):
            nothing = np.where(defined, 0.0, np.nan)
            return nothing, nothing
        found = np.cumsum(self.shares[:, places], axis=1, dtype=np.float32)
        precision = found / (self.running[:, places] + self._unusual(places, counted) + TINY)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        recall = found / np.where(defined, objects, 1).astype(np.float64)[:, None]
        # the number of the 101 recalls up to each correct detection
        reached = np.searchsorted(RECALLS, recall, side="right")
        ap = np.sum(envelope * np.diff(reached, axis=1, prepend=0), axis=1) / len(RECALLS)
        return np.where(defined, ap, np.nan), np.where(defined, recall[:, -1], np.nan)

    def _unusual(self, places: Int64[np.ndarray, " p"], counted: Bool[np.ndarray, " n"]) -> Float32[np.ndarray, "R p"]:
        """For each position, the weight of counted detections that are not usual, minus the usual ones that are not
        counted.
        """
        changed = np.flatnonzero(counted != self.usual)
        sign = np.where(counted[changed], 1, -1).astype(np.float32)
        sums = np.zeros((len(self.shares), len(changed) + 1), dtype=np.float32)
        np.cumsum(self.shares[:, changed] * sign, axis=1, out=sums[:, 1:])
        return sums[:, np.searchsorted(changed, places, side="right")]


def _mean(values: Float64[np.ndarray, "n R"]) -> Float64[np.ndarray, " R"]:
    """The mean of the defined values; NaN if there are none."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    total = np.where(defined, values, 0).sum(axis=0)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


def _interval(samples: Float64[np.ndarray, " R"]) -> Interval:
    """The interval of a figure from its value on the data set itself, which comes first, and its values on the
    resamples.
    """
    value, (low, high) = _number(samples[0]), _bounds(samples[1:])
    if value is not None and low is not None and high is not None:
        low, high = max(2 * value - high, 0.0), min(2 * value - low, 1.0)
    return Interval(value, low, high, _spread(samples[1:]))


def _difference(first: Float64[np.ndarray, " R"], other: Float64[np.ndarray, " R"]) -> Difference:
    difference = other - first
    relative = np.divide(difference, first, out=np.full(len(first), np.nan), where=first > 0)
    low, high = _bounds(difference[1:])
    spread = _spread(difference[1:])
    return Difference(
        _number(difference[0]),
        low,
        high,
        _number(relative[0]),
        *_bounds(relative[1:]),
        p=_two_sided(difference[1:]),
        standard_error=spread,
        detectable=None if spread is None else DETECTABLE * spread,
    )


def _two_sided(differences: Float64[np.ndarray, " R"]) -> float | None:
    known = differences[~np.isnan(differences)]
    if not len(known):
        return None
    tail = min(np.sum(known <= 0), np.sum(known >= 0))
    return min(1.0, 2 * (1 + int(tail)) / (1 + len(known)))


def _bounds(samples: Float64[np.ndarray, " R"]) -> tuple[float | None, float | None]:
    known = samples[~np.isnan(samples)]
    if not len(known):
        return None, None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _spread(samples: Float64[np.ndarray, " R"]) -> float | None:
    known = samples[~np.isnan(samples)]
    return float(np.std(known, ddof=1)) if len(known) > 1 else None


def _number(value: float | np.floating[Any]) -> float | None:
    return None if np.isnan(value) else float(value)
