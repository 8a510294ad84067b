"""What `resdet score --errors` and `--against` print."""

from __future__ import annotations

import io

import numpy as np
from rich.console import Console

from resdet.cli.error_tables import print_differences, print_errors
from resdet.evaluation.analysis.analyse import analyse
from resdet.evaluation.analysis.bootstrap import paired_bootstrap
from resdet.evaluation.coco import CocoResults, GroundTruth, ground_truth_from_dict

NAMES = ("[red]cat", "dog\x1b[31m", "owl")


def ground_truth() -> GroundTruth:
    """Four images, an object of 20 x 20 in each: cat, cat, dog, owl."""
    return ground_truth_from_dict(
        {
            "images": [{"id": i} for i in range(1, 5)],
            "categories": [{"id": k, "name": name} for k, name in enumerate(NAMES)],
            "annotations": [
                {"id": i, "image_id": i, "category_id": max(0, i - 2), "bbox": [0, 0, 20, 20], "area": 400}
                for i in range(1, 5)
            ],
        }
    )


def found(*labels: int) -> CocoResults:
    """One detection an image, of these classes, on the object."""
    results = CocoResults()
    for image, label in enumerate(labels, start=1):
        results.add(image, np.array([[0.0, 0, 20, 20]]), np.array([0.9 - image / 10]), np.array([label]))
    return results


def lines(console: Console) -> list[list[str]]:
    assert isinstance(console.file, io.StringIO)
    return [line.split() for line in console.file.getvalue().splitlines()]


def test_errors_are_listed_with_what_they_cost_and_confusions_by_class() -> None:
    """Both cats are taken for dogs: the cats' AP of 0 and the dogs' of 1/3 would be 1, the owls' is."""
    console = Console(file=io.StringIO(), width=100)
    print_errors(analyse(ground_truth(), found(1, 1, 1, 2), score_threshold=0.3), console=console)
    printed = lines(console)
    assert ["classification", "2", "0.556", "on", "an", "object", "of", "another", "class"] in printed
    assert next(row for row in printed if row[:1] == ["missed"])[:3] == ["missed", "0", "0.000"]
    assert ["[red]cat", "2", "100.0%", r"dog\x1b[31m"] in printed


def test_without_confusions_and_objects_the_tables_still_print() -> None:
    console = Console(file=io.StringIO(), width=100)
    empty = ground_truth_from_dict({"images": [{"id": 1}], "categories": [{"id": 0}], "annotations": []})
    print_errors(analyse(empty, CocoResults()), console=console)
    assert next(row for row in lines(console) if row[:1] == ["missed"])[:3] == ["missed", "0", "-"]


def test_differences_are_printed_with_their_interval_and_verdict() -> None:
    console = Console(file=io.StringIO(), width=120)
    runs = {"all": [found(0, 0, 1, 2)], "none": [CocoResults()]}
    print_differences(paired_bootstrap(ground_truth(), runs, resamples=100), console=console)
    printed = lines(console)
    assert printed[1][:3] == ["none", "against", "all"]
    ap = next(row for row in printed if row[:1] == ["AP"])
    assert ap == ["AP", "1.000", "0.000", "-1.000", "-1.000", "..", "-1.000", "0.020", "0.000", "significant"]
    large = next(row for row in printed if row[:1] == ["APl"])
    assert set(large[1:]) == {"-"}
