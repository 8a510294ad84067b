"""The analysis and the bootstrap keep up with data sets of COCO's size."""

from __future__ import annotations

import time

import numpy as np
import pytest

from resdet.evaluation.analysis.analyse import analyse
from resdet.evaluation.analysis.bootstrap import paired_bootstrap
from resdet.evaluation.coco import CocoResults, GroundTruth, evaluate_coco, ground_truth_from_dict


def crowded(images: int, classes: int, detectors: int) -> tuple[GroundTruth, list[CocoResults]]:
    """About 7 objects an image and 100 detections an image by each detector, half of them near an object."""
    random = np.random.default_rng(0)
    count = 7 * images

    def boxes(n: int) -> np.ndarray:
        return np.concatenate([random.uniform(0, 400, (n, 2)), np.exp(random.uniform(2.5, 5.5, (n, 2)))], axis=1)

    owner, labels, places = random.integers(images, size=count), random.integers(classes, size=count), boxes(count)
    columns = zip(owner.tolist(), labels.tolist(), places.tolist(), strict=True)
    data = {
        "images": [{"id": i, "height": 640, "width": 640} for i in range(images)],
        "categories": [{"id": k, "name": str(k)} for k in range(classes)],
        "annotations": [
            {"id": i, "image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for i, (image, label, box) in enumerate(columns)
        ],
    }
    runs = []
    for _ in range(detectors):
        size = images * 100
        near, chosen, strays = random.random(size) < 0.5, random.integers(count, size=size), boxes(size)
        found = np.where(near[:, None], np.abs(places[chosen] + random.normal(0, 8, (size, 4))), strays)
        results = CocoResults()
        results.add_columns(
            np.where(near, owner[chosen], random.integers(images, size=size)),
            np.where(near, labels[chosen], random.integers(classes, size=size)),
            random.random(size),
            found,
            None,
        )
        runs.append(results)
    return ground_truth_from_dict(data), runs


@pytest.mark.slow
def test_5000_images_of_100_detections_are_analysed_in_well_under_a_minute() -> None:
    ground_truth, (results,) = crowded(5000, 80, 1)
    start = time.process_time()
    analysis = analyse(ground_truth, results)
    seconds = time.process_time() - start
    print(f"\nanalysis of 5,000 x 100: {seconds:.1f} s")
    assert analysis.curves.mean[2].mean() == pytest.approx(evaluate_coco(ground_truth, results)["bbox/AP"], abs=1e-9)
    assert seconds < 30


@pytest.mark.slow
def test_four_detectors_on_200_images_are_compared_in_half_a_minute() -> None:
    ground_truth, runs = crowded(200, 8, 4)
    start = time.process_time()
    bootstrap = paired_bootstrap(ground_truth, {str(i): [run] for i, run in enumerate(runs)}, resamples=1000)
    seconds = time.process_time() - start
    print(f"\n1,000 resamples of 200 x 100 for four detectors: {seconds:.1f} s")
    for i, run in enumerate(runs):
        expected = evaluate_coco(ground_truth, run)["bbox/AP"]
        assert bootstrap.detectors[str(i)]["AP"].value == pytest.approx(expected, abs=1e-9)
    assert seconds < 30
