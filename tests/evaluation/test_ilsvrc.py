"""The figures of ILSVRC by a pencil."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from resdet.coco.ground_truth import GroundTruth, ground_truth_from_dict
from resdet.coco.results import CocoResults
from resdet.evaluation.ilsvrc import evaluate_ilsvrc_det, evaluate_ilsvrc_loc, thresholds
from resdet.evaluation.metrics import METRICS, Scoring, figure
from resdet.evaluation.voc import evaluate_voc

Box = tuple[float, float, float, float]  # x, y, width, height


def truth(objects: Sequence[tuple[int, int, Box]], *, images: int = 2, classes: int = 7) -> GroundTruth:
    return ground_truth_from_dict(
        {
            "images": [{"id": image} for image in range(1, images + 1)],
            "categories": [{"id": label, "name": f"n{label}"} for label in range(1, classes + 1)],
            "annotations": [
                {"id": number, "image_id": image, "category_id": label, "bbox": list(box), "area": box[2] * box[3]}
                for number, (image, label, box) in enumerate(objects, start=1)
            ],
        }
    )


def found(detections: Sequence[tuple[int, int, float, Box]]) -> CocoResults:
    results = CocoResults()
    for image, label, score, (x, y, w, h) in detections:
        results.add(image, np.array([[x, y, x + w, y + h]], np.float64), np.array([score]), np.array([label]))
    return results


def test_the_overlap_that_finds_an_object_by_hand() -> None:
    """10 x 10: 100 / 400. 30 x 20: 600 / 1200, exactly one half. Larger ones: one half."""
    boxes = np.array([[0.0, 0, 10, 10], [5, 5, 30, 20], [0, 0, 40, 30], [0, 0, 1, 1], [0, 0, 300, 200]])
    assert thresholds(boxes).tolist() == pytest.approx([0.25, 0.5, 0.5, 1 / 121, 0.5])


def test_a_box_that_is_five_pixels_off_on_each_side_finds_a_small_object() -> None:
    """10 x 10 inside 20 x 20 is an overlap of 100 / 400, the threshold itself; one pixel more is too much."""
    small = truth([(1, 1, (50, 50, 10, 10))])
    assert evaluate_ilsvrc_det(small, found([(1, 1, 0.9, (45, 45, 20, 20))]))["ilsvrc/AP"] == 1
    assert evaluate_ilsvrc_det(small, found([(1, 1, 0.9, (45, 45, 21, 20))]))["ilsvrc/AP"] == 0
    assert evaluate_voc(small, found([(1, 1, 0.9, (45, 45, 20, 20))]))["voc/AP50"] == 0


def test_each_object_is_matched_once_and_a_second_detection_takes_another_one_if_it_can() -> None:
    """Two objects overlap by 60 / 140 of 100 x 100: both detections fit both by 0.5 or more.

    The first takes the one it overlaps most. The second overlaps that one most, too; it is taken, so that the second
    takes the other. VOC's rule counts the second as false.
    """
    pair = truth([(1, 1, (0, 0, 100, 100)), (1, 1, (0, 30, 100, 100))])
    detections = [(1, 1, 0.9, (0.0, 10.0, 100.0, 100.0)), (1, 1, 0.8, (0.0, 5.0, 100.0, 100.0))]
    assert evaluate_ilsvrc_det(pair, found(detections))["ilsvrc/AP"] == 1
    assert evaluate_voc(pair, found(detections))["voc/AP50"] == 0.5
    third = [*detections, (1, 1, 0.95, (0.0, 0.0, 100.0, 100.0))]  # now the last one, of 0.8, finds both taken
    assert evaluate_ilsvrc_det(pair, found(third))["ilsvrc/AP"] == 1
    assert evaluate_ilsvrc_det(pair, found([*third, (1, 1, 0.99, (0, 300, 9, 9))]))["ilsvrc/AP"] == pytest.approx(2 / 3)


def test_the_mean_over_the_classes_that_have_objects() -> None:
    """Class 1: right, wrong, right of three objects: precisions 1 and 2/3 at recalls 1/3 and 2/3, so 1/3 + 2/9.
    Class 2: nothing found. Class 3: no object.
    """
    big = (0.0, 0.0, 100.0, 100.0)
    ground_truth = truth([(1, 1, big), (2, 1, big), (2, 1, (200, 0, 100, 100)), (1, 2, big)], classes=3)
    detections = [(1, 1, 0.9, big), (1, 1, 0.8, (0.0, 500.0, 9.0, 9.0)), (2, 1, 0.7, big), (2, 3, 0.6, big)]
    figures = evaluate_ilsvrc_det(ground_truth, found(detections))
    assert figures["ilsvrc/AP/n1"] == pytest.approx(1 / 3 + 2 / 9)
    assert figures["ilsvrc/AP/n2"] == 0
    assert figures["ilsvrc/AP/n3"] is None
    assert figures["ilsvrc/AP"] == pytest.approx((1 / 3 + 2 / 9) / 2)


BIG, HALF, FAR = (0.0, 0.0, 100.0, 100.0), (0.0, 0.0, 50.0, 100.0), (300.0, 0.0, 100.0, 100.0)


def guesses(places: Sequence[Box], *, right: int) -> list[tuple[int, int, float, Box]]:
    """In image 1, one guess of each of the classes 1, 2, ... by falling score; the right class is moved to `right`."""
    order = [label for label in range(2, 8)]
    order.insert(right, 1)
    return [(1, label, 0.9 - 0.1 * place, places[place]) for place, label in enumerate(order)]


@pytest.mark.parametrize(
    ("right", "box", "top5", "top1", "classes", "given"),
    [
        (0, BIG, 0, 0, 0, 0),  # the first guess is right
        (0, HALF, 0, 0, 0, 0),  # by an overlap of exactly one half
        (4, BIG, 0, 1, 0, 0),  # the fifth
        (5, BIG, 1, 1, 1, 0),  # the sixth
        (0, FAR, 1, 1, 0, 1),  # the right class in the wrong place
    ],
)
def test_the_errors_of_an_image_by_hand(right: int, box: Box, top5: int, top1: int, classes: int, given: int) -> None:
    """Every other guess has the box of the object, too, which does not help: its class is wrong."""
    places: list[Box] = [BIG] * 7
    places[right] = box
    figures = evaluate_ilsvrc_loc(truth([(1, 1, BIG)], images=1), found(guesses(places, right=right)))
    assert figures == {
        "loc/top5_error": top5,
        "loc/top1_error": top1,
        "loc/top5_class_error": classes,
        "loc/given_class_error": given,
    }


def test_only_the_best_box_of_a_class_is_its_guess_and_any_object_of_the_class_will_do() -> None:
    two = truth([(1, 1, BIG), (1, 1, FAR)], images=1)
    assert evaluate_ilsvrc_loc(two, found([(1, 1, 0.5, FAR)]))["loc/top1_error"] == 0
    behind = found([(1, 1, 0.5, FAR), (1, 1, 0.6, (700.0, 0.0, 9.0, 9.0))])
    assert evaluate_ilsvrc_loc(two, behind)["loc/given_class_error"] == 1


def test_images_without_objects_do_not_count_and_images_without_guesses_are_wrong() -> None:
    figures = evaluate_ilsvrc_loc(
        truth([(1, 1, BIG), (2, 2, BIG)], images=3), found([(1, 1, 0.9, BIG), (3, 1, 0.9, BIG)])
    )
    assert figures["loc/top5_error"] == 0.5
    assert set(evaluate_ilsvrc_loc(truth([]), found([])).values()) == {None}
    assert evaluate_ilsvrc_loc(truth([(1, 1, BIG)]), found([]))["loc/top5_error"] == 1


def test_the_table_of_metrics_has_both_with_the_meaning_of_their_figures() -> None:
    one = truth([(1, 1, BIG)])
    for name, error in (("ilsvrc_det", False), ("ilsvrc_loc", True)):
        figures = METRICS[name].score(one, found([(1, 1, 0.9, BIG)]), Scoring())
        for key in (key for key in figures if key.count("/") == 1):
            row = figure(key)
            assert row is not None
            assert row.higher_is_better != error
            assert figures[key] == (0 if error else 1)
