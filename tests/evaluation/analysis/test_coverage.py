"""How often the bootstrap's intervals hold the figure of the population that a data set was drawn from."""

from __future__ import annotations

import numpy as np
import pytest

from resdet.evaluation.analysis.bootstrap import FIGURES, Difference, Interval, paired_bootstrap
from resdet.evaluation.coco import CocoResults, GroundTruth, evaluate_coco, ground_truth_from_dict

SKILLS = (0.0, 0.3)  # of two detectors
DEFINED = [figure for figure in FIGURES if figure != "APl"]  # no object is that large
IMAGES, SETS, POPULATION = 100, 200, 15_000


def drawn(random: np.random.Generator, images: int) -> tuple[GroundTruth, list[CocoResults]]:
    """Images of varied difficulty, three objects in each on average, of three classes, one of them common; each
    detector finds the easier objects, the more loosely the less its skill, and three boxes in the background."""

    def label() -> int:
        return min(3, int(random.geometric(0.5)))

    annotations, rows = [], [[] for _ in SKILLS]
    for image in range(1, images + 1):
        ease = random.normal()
        for place in range(random.poisson(3)):
            side, kind, own = float(random.uniform(20, 80)), label(), random.normal()
            x, y = 100.0 * (place % 6), 100.0 * (place // 6)
            identity = {"id": len(annotations), "image_id": image, "category_id": kind, "iscrowd": 0}
            annotations.append(identity | {"bbox": [x, y, side, side], "area": side * side})
            for skill, found in zip(SKILLS, rows, strict=True):
                sureness = skill + 0.7 * (ease + own + random.normal())
                shift = abs(random.normal(0, 0.1)) * side * np.exp(-skill / 2)
                if sureness > -0.5:
                    found.append((image, kind, sureness, (x + shift, y, side, side)))
        for found in rows:
            for _ in range(random.poisson(3)):
                found.append((image, label(), random.normal(-0.5), (random.uniform(0, 600), 700.0, 30.0, 30.0)))
    categories = [{"id": k, "name": str(k)} for k in (1, 2, 3)]
    truth = {"images": [{"id": i} for i in range(1, images + 1)], "annotations": annotations, "categories": categories}
    runs = []
    for found in rows:
        image_ids, labels, scores, boxes = map(np.array, zip(*found, strict=True))
        results = CocoResults()
        results.add_columns(image_ids, labels, 1 / (1 + np.exp(-scores)), boxes, None)
        runs.append(results)
    return ground_truth_from_dict(truth), runs


def holds(interval: Interval | Difference, value: float) -> bool:
    assert interval.low is not None
    assert interval.high is not None
    return interval.low <= value <= interval.high


@pytest.mark.slow
def test_95_percent_intervals_hold_the_populations_figures_in_about_nine_of_ten_sets() -> None:
    """AP is a ratio with an envelope and no mean, so a few percent are lost; they are printed for each figure."""
    ground_truth, runs = drawn(np.random.default_rng(123), POPULATION)
    true = [evaluate_coco(ground_truth, run) for run in runs]
    held = {name: np.zeros(len(DEFINED)) for name in ("figure", "difference")}
    for seed in range(SETS):
        ground_truth, (a, b) = drawn(np.random.default_rng(1000 + seed), IMAGES)
        bootstrap = paired_bootstrap(ground_truth, {"a": [a], "b": [b]}, resamples=300, seed=seed)
        for i, figure in enumerate(DEFINED):
            first, second = (values[f"bbox/{figure}"] for values in true)
            interval, difference = bootstrap.detectors["a"][figure], bootstrap.differences["b"][figure]
            assert first is not None
            assert second is not None
            held["figure"][i] += holds(interval, first)
            held["difference"][i] += holds(difference, second - first)
    for name, counts in held.items():
        shares = dict(zip(DEFINED, (counts / SETS).round(3).tolist(), strict=True))
        print(f"\n{name}: {shares}")
        assert min(shares.values()) > 0.83
        assert np.mean(list(shares.values())) > 0.88
