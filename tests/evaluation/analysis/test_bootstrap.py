"""The paired bootstrap: figures under weights are exact, a detector equals itself, intervals hold the truth."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from resdet.errors import UserError
from resdet.evaluation.analysis.bootstrap import DETECTABLE, FIGURES, Difference, paired_bootstrap, weighted_figures
from resdet.evaluation.analysis.matches import match, overlapping_pairs
from resdet.evaluation.coco import CocoResults, GroundTruth, coco_problem, evaluate_coco, ground_truth_from_dict

CLASSES = (1, 2, 3)
Rows = list[tuple[int, int, float, list[float]]]  # image, class, score or 0, box


def dataset(objects: Rows, images: Sequence[int], *, crowd: Sequence[int] = ()) -> GroundTruth:
    return ground_truth_from_dict(
        {
            "images": [{"id": i, "height": 400, "width": 400} for i in images],
            "categories": [{"id": k, "name": f"class {k}"} for k in CLASSES],
            "annotations": [
                {"id": i, "image_id": image, "category_id": label, "bbox": box, "iscrowd": int(i in crowd)}
                | {"area": box[2] * box[3]}
                for i, (image, label, _, box) in enumerate(objects)
            ],
        }
    )


def detections(rows: Rows) -> CocoResults:
    results = CocoResults()
    if rows:
        images, labels, scores, boxes = zip(*rows, strict=True)
        results.add_columns(np.array(images), np.array(labels), np.array(scores), np.array(boxes), None)
    return results


def generated(seed: int, images: int) -> tuple[Rows, list[Rows]]:
    """Objects of three classes and all sizes; three detectors, each looser than the one before; no equal scores."""
    random = np.random.default_rng(seed)
    objects: Rows = []
    detectors: list[Rows] = [[], [], []]
    for image in range(1, images + 1):
        for _ in range(random.integers(0, 5)):
            box = [*random.uniform(0, 250, 2).tolist(), *np.exp(random.uniform(2.3, 5, 2)).tolist()]
            label = int(random.choice(CLASSES, p=(0.6, 0.3, 0.1)))
            objects.append((image, label, 0.0, box))
            for noise, rows in zip((0.05, 0.1, 0.2), detectors, strict=True):
                for _ in range(random.integers(0, 3)):
                    shaken = [box[0], box[1], *(side * np.exp(random.normal(0, noise)) for side in box[2:])]
                    rows.append((image, label, float(random.random()), shaken))
                if random.random() < 0.4:
                    rows.append((image, label, float(random.random()), [300.0, 300.0, 50.0, 50.0]))
    return objects, detectors


def figures_under(ground_truth: GroundTruth, results: CocoResults, weights: np.ndarray) -> dict[str, float]:
    problem = coco_problem(ground_truth, results, iou_type="bbox", image_ids=None, limits=(100,))
    matches = match(problem, overlapping_pairs(problem, least=0.5))
    figures = weighted_figures(problem, matches, weights.astype(np.float32)[None])
    return dict(zip(FIGURES, figures[:, 0].tolist(), strict=True))


def assert_equal(ours: dict[str, float], theirs: dict[str, float | None]) -> None:
    for name, value in ours.items():
        expected = theirs[f"bbox/{name}"]
        assert value == pytest.approx(np.nan if expected is None else expected, abs=1e-9, nan_ok=True), name


@pytest.mark.parametrize("seed", range(4))
def test_with_weights_of_one_the_figures_are_those_of_coco(seed: int) -> None:
    objects, (rows, *_) = generated(seed, 12)
    ground_truth = dataset(objects, range(1, 13), crowd=range(seed))
    assert_equal(
        figures_under(ground_truth, detections(rows), np.ones(12)), evaluate_coco(ground_truth, detections(rows))
    )


@pytest.mark.parametrize("seed", range(8))
def test_an_image_of_weight_w_is_w_images(seed: int) -> None:
    """The data set written out: every image, its objects and its detections as often as it weighs."""
    objects, (rows, *_) = generated(seed, 10)
    weights = np.random.default_rng(seed).integers(0, 4, size=10)
    copies = [(image, copy) for image in range(1, 11) for copy in range(weights[image - 1])]
    ids = {pair: i for i, pair in enumerate(copies, start=1)}

    def written_out(table: Rows) -> Rows:
        return [
            (ids[image, copy], label, score, box)
            for image, label, score, box in table
            for copy in range(weights[image - 1])
        ]

    whole = dataset(written_out(objects), list(ids.values()))
    expected = evaluate_coco(whole, detections(written_out(rows)))
    assert_equal(figures_under(dataset(objects, range(1, 11)), detections(rows), weights), expected)


def test_a_detector_differs_from_itself_by_nothing() -> None:
    objects, (rows, *_) = generated(3, 30)
    ground_truth, results = dataset(objects, range(1, 31)), detections(rows)
    bootstrap = paired_bootstrap(ground_truth, {"one": [results], "same": [results]}, resamples=50)
    assert bootstrap.detectors["one"] == bootstrap.detectors["same"]
    assert list(bootstrap.differences) == ["same"]
    for figure in FIGURES:
        difference = bootstrap.differences["same"][figure]
        assert (difference.difference, difference.low, difference.high, difference.p) == (0, 0, 0, 1)
        assert (difference.relative, difference.detectable, difference.significant) == (0, 0, False)


def test_values_are_those_of_the_data_set_and_intervals_reach_around_them() -> None:
    objects, tables = generated(3, 30)
    ground_truth = dataset(objects, range(1, 31))
    results = {f"noise {i}": [detections(rows)] for i, rows in enumerate(tables)}
    bootstrap = paired_bootstrap(ground_truth, results, resamples=200)
    for name, (run,) in results.items():
        expected = evaluate_coco(ground_truth, run)
        for figure in FIGURES:
            interval = bootstrap.detectors[name][figure]
            assert interval.value == pytest.approx(expected[f"bbox/{figure}"], abs=1e-9)
            assert interval.low is not None
            assert interval.high is not None
            assert 0 <= interval.low <= interval.high <= 1
    loose = bootstrap.differences["noise 2"]["AP"]
    first, last = (bootstrap.detectors[f"noise {i}"]["AP"].value for i in (0, 2))
    assert first is not None
    assert last is not None
    assert loose.difference == pytest.approx(last - first)
    assert loose.relative == pytest.approx((last - first) / first)
    assert loose.significant
    assert loose.p == pytest.approx(2 / 201)  # no resample has the other sign
    assert loose.standard_error is not None
    assert loose.detectable == pytest.approx(DETECTABLE * loose.standard_error)


def test_the_same_seed_draws_the_same_images_for_any_company() -> None:
    objects, tables = generated(5, 12)
    ground_truth = dataset(objects, range(1, 13))
    a, b, c = ([detections(rows)] for rows in tables)
    both = paired_bootstrap(ground_truth, {"a": a, "b": b}, resamples=40)
    three = paired_bootstrap(ground_truth, {"a": a, "c": c, "b": b}, resamples=40)
    assert both.differences["b"] == three.differences["b"]
    assert both != paired_bootstrap(ground_truth, {"a": a, "b": b}, resamples=40, seed=1)


def test_seeds_are_averaged_within_each_resample() -> None:
    """Two detectors of the same three runs, in another order, differ by nothing; the value is the mean of theirs."""
    objects, tables = generated(6, 12)
    ground_truth, runs = dataset(objects, range(1, 13)), [detections(rows) for rows in tables]
    bootstrap = paired_bootstrap(ground_truth, {"one": runs, "other": runs[::-1]}, resamples=30)
    single = [evaluate_coco(ground_truth, run)["bbox/AP"] for run in runs]
    assert bootstrap.detectors["one"]["AP"].value == pytest.approx(np.mean([value or 0.0 for value in single]))
    assert bootstrap.differences["other"]["AP"].difference == pytest.approx(0, abs=1e-12)


def test_many_resamples_at_once_or_few_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    objects, (rows, *_) = generated(7, 12)
    ground_truth, detector = dataset(objects, range(1, 13)), {"a": [detections(rows)]}
    whole = paired_bootstrap(ground_truth, detector, resamples=20)
    monkeypatch.setattr("resdet.evaluation.analysis.bootstrap.ELEMENTS_AT_ONCE", 100)
    assert paired_bootstrap(ground_truth, detector, resamples=20) == whole


def test_what_is_undefined_is_none_and_writes_as_json() -> None:
    """No large objects: no APl, and none of it in any resample; no detections: every figure is 0."""
    objects: Rows = [(image, 1, 0.0, [0.0, 0.0, 20.0, 20.0]) for image in range(1, 6)]
    ground_truth = dataset(objects, range(1, 6))
    bootstrap = paired_bootstrap(ground_truth, {"none": [CocoResults()], "also": [CocoResults()]}, resamples=10)
    nothing = bootstrap.differences["also"]["APl"]
    assert nothing == Difference(None, None, None, None, None, None, None, None, None)
    assert bootstrap.detectors["none"]["AP"].value == 0
    assert bootstrap.differences["also"]["AP"].relative is None
    plain = json.loads(json.dumps(bootstrap.to_json(), allow_nan=False))
    assert plain["differences"]["also"]["AP"]["significant"] is False


def test_intervals_hold_the_true_value_about_as_often_as_they_say() -> None:
    """One object an image, found with probability .6 by one detector and .75 by the other: AR100 is that share."""
    random = np.random.default_rng(0)
    images, held, different = 60, [], []
    box = [0.0, 0.0, 20.0, 20.0]
    ground_truth = dataset([(image, 1, 0.0, box) for image in range(1, images + 1)], range(1, images + 1))
    for trial in range(60):
        runs = {}
        for share in (0.6, 0.75):
            hits = np.flatnonzero(random.random(images) < share) + 1
            runs[str(share)] = [detections([(image, 1, float(random.random()), box) for image in hits.tolist()])]
        bootstrap = paired_bootstrap(ground_truth, runs, resamples=150, seed=trial)
        for share in (0.6, 0.75):
            interval = bootstrap.detectors[str(share)]["AR100"]
            assert interval.low is not None
            assert interval.high is not None
            held.append(interval.low <= share <= interval.high)
        difference = bootstrap.differences["0.75"]["AR100"]
        assert difference.low is not None
        assert difference.high is not None
        different.append(difference.low <= 0.15 <= difference.high)
    assert 0.88 <= np.mean(held) <= 0.99  # four standard errors of 95 % are .04 and .11
    assert 0.85 <= np.mean(different) <= 1


def test_the_effect_called_detectable_is_found_in_about_four_of_five_data_sets() -> None:
    """Shares of .6 and .75 on 60 images: the standard error is (.6 x .4 + .75 x .25)^.5 / 60^.5 = .0844 on average."""
    box = [0.0, 0.0, 20.0, 20.0]
    hits = np.arange(60) < 36  # exactly .6, and independent of it exactly .75
    other = np.arange(60) % 4 != 0
    ground_truth = dataset([(image, 1, 0.0, box) for image in range(1, 61)], range(1, 61))
    runs = {
        name: [detections([(int(i) + 1, 1, 0.5, box) for i in np.flatnonzero(chosen)])]
        for name, chosen in (("a", hits), ("b", other))
    }
    difference = paired_bootstrap(ground_truth, runs, resamples=2000).differences["b"]["AR100"]
    assert difference.difference == pytest.approx(0.15)
    assert difference.detectable == pytest.approx(2.8 * ((0.6 * 0.4 + 0.75 * 0.25) / 60) ** 0.5, rel=0.06)


def test_there_must_be_something_to_compare() -> None:
    ground_truth = dataset([], [1])
    for detectors in ({}, {"a": []}):
        with pytest.raises(UserError, match="at least one run"):
            _ = paired_bootstrap(ground_truth, detectors)
    with pytest.raises(UserError, match="resamples=0"):
        _ = paired_bootstrap(ground_truth, {"a": [CocoResults()]}, resamples=0)
