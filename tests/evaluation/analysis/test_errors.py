"""Each kind of error once, by pencil; what mending it gives; and what the analysis says of whole images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from resdet.errors import UserError
from resdet.evaluation.analysis.analyse import Analysis, analyse
from resdet.evaluation.analysis.errors import ERROR_TYPES, ap50_after, find_errors
from resdet.evaluation.analysis.matches import match, overlapping_pairs
from resdet.evaluation.coco import CocoResults, GroundTruth, coco_problem, evaluate_coco, ground_truth_from_dict

CAT, DOG = 5, 9
HERE, THERE, FAR = [0, 0, 20, 20], [40, 0, 20, 20], [0, 60, 20, 20]
Entry = tuple[int, int, Sequence[float], float]


def truth(*objects: tuple[int, int, Sequence[float]], crowd: Sequence[int] = (), images: int = 3) -> GroundTruth:
    """Objects of (image, class, xywh box); those whose places are in `crowd` are crowd regions."""
    annotations: list[dict[str, Any]] = [
        {"id": i, "image_id": image, "category_id": label, "bbox": list(box), "area": box[2] * box[3]}
        | {"iscrowd": int(i in crowd)}
        for i, (image, label, box) in enumerate(objects)
    ]
    sizes = [{"id": i, "height": 100, "width": 100} for i in range(1, images + 1)]
    names = [{"id": CAT, "name": "cat"}, {"id": DOG, "name": "dog"}]
    return ground_truth_from_dict({"images": sizes, "categories": names, "annotations": annotations})


def found(*entries: Entry) -> CocoResults:
    results = CocoResults()
    for image_id, label, (x, y, w, h), score in entries:
        results.add(image_id, np.array([[x, y, x + w, y + h]], float), np.array([score]), np.array([label]))
    return results


def errors_of(ground_truth: GroundTruth, results: CocoResults) -> dict[str, int]:
    counts = analyse(ground_truth, results).errors.counts
    return {name: count for name, count in counts.items() if count}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        pytest.param((1, DOG, HERE, 0.9), {"classification": 1}, id="the wrong class"),
        pytest.param((1, CAT, [0, 0, 20, 9], 0.9), {"localisation": 1}, id="IoU 0.45 with its class"),
        pytest.param((1, DOG, [0, 0, 20, 9], 0.9), {"both": 1, "missed": 1}, id="IoU 0.45 with another class"),
        pytest.param((1, CAT, THERE, 0.9), {"background": 1, "missed": 1}, id="nothing is there"),
        pytest.param((1, CAT, [0, 0, 20, 1.9], 0.9), {"background": 1, "missed": 1}, id="IoU 0.095"),
        pytest.param((2, CAT, HERE, 0.9), {"background": 1, "missed": 1}, id="in an image without objects"),
        pytest.param((1, CAT, [0, 0, 20, 10], 0.9), {}, id="IoU 0.5 is right"),
    ],
)
def test_one_detection_of_one_cat(entry: Entry, expected: dict[str, int]) -> None:
    assert errors_of(truth((1, CAT, HERE)), found(entry)) == expected


def test_a_second_detection_is_a_duplicate() -> None:
    results = found((1, CAT, HERE, 0.9), (1, CAT, HERE, 0.8))
    assert errors_of(truth((1, CAT, HERE)), results) == {"duplicate": 1}


def test_nothing_found_is_all_missed_and_nothing_to_find_all_background() -> None:
    assert errors_of(truth((1, CAT, HERE), (2, DOG, HERE)), CocoResults()) == {"missed": 2}
    analysis = analyse(truth(), found((1, CAT, HERE, 0.9)))
    assert analysis.errors.counts["background"] == 1
    assert analysis.errors.ap50 is None
    assert set(analysis.errors.cost.values()) == {None}


def test_crowds_are_no_objects_and_detections_on_them_no_errors() -> None:
    ground_truth = truth((1, CAT, HERE), (1, CAT, [30, 30, 60, 60]), crowd=[1])
    results = found((1, CAT, HERE, 0.9), (1, CAT, [40, 40, 9, 9], 0.8), (1, CAT, [50, 50, 9, 9], 0.7))
    analysis = analyse(ground_truth, results)
    assert sum(analysis.errors.counts.values()) == 0
    assert analysis.confusion.counts.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert analysis.calibration.counts.sum() == 1
    assert analysis.worst == ()


def test_the_cost_of_each_error_by_pencil() -> None:
    """Two cats, of which the second alone is found, behind a box in the background: AP is 1/2 up to recall 1/2.

    Without the box AP is 51/101. With the missed cat gone the detection still comes second: 1/2 at every recall.
    """
    ground_truth = truth((1, CAT, HERE), (2, CAT, HERE))
    results = found((1, CAT, FAR, 0.9), (2, CAT, HERE, 0.8))
    errors = analyse(ground_truth, results).errors
    ap50 = 51 / 101 / 2
    assert errors.ap50 == pytest.approx(ap50)
    assert errors.counts == {name: int(name in ("background", "missed")) for name in ERROR_TYPES}
    expected = dict.fromkeys(ERROR_TYPES, 0.0) | {"background": 51 / 101 - ap50, "missed": 1 / 2 - ap50}
    expected |= {"false positives": 51 / 101 - ap50, "false negatives": 1 / 2 - ap50}
    assert errors.cost == pytest.approx(expected)


def test_a_mended_class_or_box_counts_with_its_own_score() -> None:
    """Alone in its class, the cat taken for a dog and the dog's loose box: mended, each class has AP 1."""
    ground_truth = truth((1, CAT, HERE), (2, DOG, HERE))
    wrong_class, loose_box = (1, DOG, HERE, 0.9), (2, DOG, [0, 0, 20, 9], 0.8)
    errors = analyse(ground_truth, found(wrong_class, loose_box)).errors
    assert errors.ap50 == 0
    assert errors.cost["classification"] == pytest.approx(1 / 2)  # the cat's class: 1; the dog's: still 0
    assert errors.cost["localisation"] == pytest.approx(1 / 4)  # the dog's class: right, behind a wrong one
    assert errors.by_class[:, 1].tolist() == [1, 1, 0, 0, 0, 0]  # both are dogs to the detector


def test_of_several_errors_about_one_object_the_best_is_mended_and_the_others_go() -> None:
    ground_truth = truth((1, CAT, HERE))
    loose = [(1, CAT, [0, 0, 20, 9], 0.9), (1, CAT, [0, 0, 20, 8], 0.8), (1, CAT, [0, 0, 9, 20], 0.7)]
    errors = analyse(ground_truth, found(*loose)).errors
    assert errors.counts["localisation"] == 3
    assert errors.cost["localisation"] == pytest.approx(1)


def test_of_errors_of_both_kinds_about_one_object_the_best_alone_can_be_mended() -> None:
    """As tidecv has it: mending boxes alone removes the loose one, for the dog is the surer about this cat."""
    ground_truth = truth((1, CAT, HERE))
    errors = analyse(ground_truth, found((1, DOG, HERE, 0.9), (1, CAT, [0, 0, 20, 9], 0.8))).errors
    assert errors.counts["classification"] == errors.counts["localisation"] == 1
    assert errors.cost["localisation"] == 0
    assert errors.cost["classification"] == pytest.approx(1)  # ahead of the loose box


def test_an_error_about_an_object_that_is_found_goes() -> None:
    """The dog's box on a found cat: mending removes it; the cat must not be found twice."""
    ground_truth = truth((1, CAT, HERE), (2, DOG, HERE))
    results = found((1, DOG, HERE, 0.95), (1, CAT, HERE, 0.9), (2, DOG, HERE, 0.8))
    errors = analyse(ground_truth, results).errors
    assert errors.ap50 == pytest.approx(3 / 4)
    assert errors.cost["classification"] == pytest.approx(1 / 4)


def test_a_class_of_which_all_objects_are_missed() -> None:
    """Its AP is 1 with them gone, unless it has detections all the same."""
    ground_truth = truth((1, CAT, HERE), (2, DOG, HERE))
    silent = analyse(ground_truth, found((1, CAT, HERE, 0.9))).errors
    assert silent.cost["missed"] == pytest.approx(1 / 2)
    loud = analyse(ground_truth, found((1, CAT, HERE, 0.9), (3, DOG, FAR, 0.8))).errors
    assert loud.cost["missed"] == 0
    assert loud.cost["background"] == 0


def random_case(seed: int) -> tuple[GroundTruth, CocoResults]:
    random = np.random.default_rng(seed)

    def box() -> list[float]:
        return [*random.uniform(0, 40, 2).tolist(), *random.uniform(8, 40, 2).tolist()]

    objects = [(int(random.integers(1, 4)), int(random.choice((CAT, DOG))), box()) for _ in range(9)]
    entries = []
    for score in random.permutation(30) / 30:
        image, label, near = objects[random.integers(9)]
        shaken = [value + abs(random.normal(0, 4)) for value in near]
        label = label if random.random() < 0.8 else int(random.choice((CAT, DOG)))
        entries.append((image, label, shaken if random.random() < 0.8 else box(), float(score)))
    return truth(*objects, crowd=[0] if seed % 2 else []), found(*entries)


@pytest.mark.parametrize("seed", range(20))
def test_mending_never_costs_and_mending_everything_gives_one(seed: int) -> None:
    ground_truth, results = random_case(seed)
    errors = analyse(ground_truth, results).errors
    assert errors.ap50 == pytest.approx(evaluate_coco(ground_truth, results)["bbox/AP50"], abs=1e-12)
    assert all(value is not None and value >= 0 for value in errors.cost.values())
    problem = coco_problem(ground_truth, results, iou_type="bbox", image_ids=None, limits=(100,))
    pairs = overlapping_pairs(problem, least=0.1)
    findings = find_errors(problem, pairs, match(problem, pairs))
    assert ap50_after(problem, findings, mended=range(6)) == pytest.approx(1)
    assert errors.counts["missed"] + int(findings.right.sum()) <= int(findings.to_find.sum())


@pytest.mark.parametrize("seed", range(6))
def test_means_over_recall_are_the_figures_of_coco(seed: int) -> None:
    ground_truth, results = random_case(seed)
    figures, analysis = evaluate_coco(ground_truth, results), analyse(ground_truth, results)
    for row, name in enumerate(("AP50", "AP75", "AP")):
        assert analysis.curves.mean[row].mean() == pytest.approx(figures[f"bbox/{name}"], abs=1e-9)
    for k, name in enumerate(ground_truth.class_names):
        assert analysis.curves.precision[2, k].mean() == pytest.approx(figures[f"bbox/AP/{name}"], abs=1e-9)
    for size, letter in enumerate("sml", start=1):
        expected = figures[f"bbox/AP{letter}"]
        assert analysis.sizes.ap[size] == pytest.approx(np.nan if expected is None else expected, nan_ok=True)
    assert analysis.sizes.ar100[0] == pytest.approx(figures["bbox/AR100"])


def test_the_confusion_matrix_by_pencil() -> None:
    """Rows are the truth, columns the detector's words; at score 0.5."""
    ground_truth = truth((1, CAT, HERE), (1, DOG, THERE), (1, CAT, FAR), (2, DOG, HERE))
    results = found(
        (1, CAT, HERE, 0.9),  # right
        (1, CAT, THERE, 0.8),  # the dog is taken for a cat
        (1, DOG, [0, 70, 20, 20], 0.7),  # a third of the second cat: nothing
        (2, DOG, HERE, 0.4),  # right, but not sure enough
    )
    confusion = analyse(ground_truth, results).confusion
    assert confusion.counts.tolist() == [[1, 0, 1], [1, 0, 1], [0, 1, 0]]
    unsure = analyse(ground_truth, results, score_threshold=0.3).confusion
    assert unsure.counts.tolist() == [[1, 0, 1], [1, 1, 0], [0, 1, 0]]


@pytest.mark.parametrize("seed", range(6))
def test_every_object_and_every_sure_detection_is_counted_once(seed: int) -> None:
    ground_truth, results = random_case(seed)
    analysis = analyse(ground_truth, results, score_threshold=0.4)
    counts = analysis.confusion.counts
    objects = np.bincount(ground_truth.label[~ground_truth.crowd], minlength=2)
    assert counts[:2].sum(axis=1).tolist() == objects.tolist()
    images = analysis.images
    assert int((images.missed + images.found).sum()) == int(objects.sum())
    assert int(np.trace(counts[:2, :2])) == int(images.found.sum())
    assert counts[:, :2].sum() == int((images.false + images.found).sum())


def test_scores_are_held_against_the_share_that_is_right() -> None:
    """Three of .85 of which two are right, one of .1 that is wrong: gaps .85 - 2/3 and .1."""
    ground_truth = truth((1, CAT, HERE), (2, CAT, HERE))
    results = found((1, CAT, HERE, 0.85), (2, CAT, HERE, 0.85), (3, CAT, HERE, 0.85), (3, CAT, FAR, 0.1))
    calibration = analyse(ground_truth, results).calibration
    assert calibration.counts.tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 3, 0]
    assert calibration.precision[[1, 8]] == pytest.approx([0, 2 / 3])
    assert calibration.confidence[[1, 8]] == pytest.approx([0.1, 0.85])
    assert np.isnan(calibration.precision[0])
    assert calibration.ece == pytest.approx((3 * (0.85 - 2 / 3) + 0.1) / 4)
    assert analyse(ground_truth, CocoResults()).calibration.ece is None


def test_the_score_to_cut_at_has_the_highest_f1() -> None:
    """Right .9, right .8, wrong .7, wrong .6 of three cats: F1 is 2/4, 4/5, 4/6, 4/7."""
    ground_truth = truth((1, CAT, HERE), (2, CAT, HERE), (3, CAT, HERE))
    results = found((1, CAT, HERE, 0.9), (2, CAT, HERE, 0.8), (1, CAT, FAR, 0.7), (2, CAT, FAR, 0.6))
    curves = analyse(ground_truth, results).curves
    assert (curves.best_score[0], curves.best_f1[0]) == pytest.approx((0.8, 4 / 5))
    assert np.isnan(curves.best_f1[1])


def test_the_worst_images_name_what_to_draw() -> None:
    """Places count in the ground truth's arrays and the results', whatever the order of the scores."""
    ground_truth = truth((2, DOG, FAR), (1, CAT, HERE), (2, CAT, HERE), (2, CAT, THERE))
    results = found((2, CAT, THERE, 0.6), (1, CAT, HERE, 0.9), (2, DOG, HERE, 0.7), (2, CAT, FAR, 0.2))
    analysis = analyse(ground_truth, results)
    (worst,) = analysis.worst
    assert worst.image_id == 2
    assert ground_truth.annotation_ids[worst.missed].tolist() == [0, 2]
    assert (worst.false.tolist(), worst.false_types) == ([2], ("classification",))
    assert worst.found.tolist() == [0]
    assert analysis.images.image_ids.tolist() == [1, 2, 3]
    assert analysis.images.missed.tolist() == [0, 2, 0]
    assert analysis.images.false.tolist() == [0, 1, 0]
    assert analysis.images.found.tolist() == [1, 1, 0]


def test_worst_images_come_first_and_are_as_many_as_asked_for() -> None:
    ground_truth = truth((1, CAT, HERE), (2, CAT, HERE), (2, CAT, THERE), (3, DOG, HERE))
    sure = found((3, CAT, FAR, 0.9), (1, CAT, FAR, 0.6))
    assert [image.image_id for image in analyse(ground_truth, sure).worst] == [3, 1, 2]  # two errors each
    assert [image.image_id for image in analyse(ground_truth, sure, worst=1).worst] == [3]


def test_a_part_of_the_images_is_analysed_as_a_data_set_of_its_own() -> None:
    ground_truth = truth((1, CAT, HERE), (2, DOG, HERE))
    analysis = analyse(ground_truth, found((1, CAT, HERE, 0.9), (2, CAT, HERE, 0.8)), image_ids=[2])
    assert analysis.images.image_ids.tolist() == [2]
    assert analysis.errors.counts["classification"] == 1
    assert analysis.worst[0].missed.tolist() == [1]
    assert analysis.worst[0].false.tolist() == [1]


def test_masks_are_analysed_by_their_pixels() -> None:
    """Boxes are equal; the mask of the upper third is a localisation error."""

    def rows(last: int) -> dict[str, Any]:
        return {"size": [30, 10], "counts": [0, *[last, 30 - last] * 10]}

    data = {
        "images": [{"id": 1, "height": 30, "width": 10}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 30], "segmentation": rows(29), "iscrowd": 0}
        ],
    }
    results = CocoResults()
    corners = np.array([[0.0, 0, 10, 30]] * 2)
    results.add(1, corners, np.array([0.9, 0.8]), np.array([1, 1]), [rows(10), rows(25)])
    analysis: Analysis = analyse(ground_truth_from_dict(data), results, iou_type="segm")
    assert analysis.errors.counts["localisation"] == 1
    assert analysis.errors.ap50 == pytest.approx(1 / 2)
    assert analysis.worst[0].false.tolist() == [0]
    assert analysis.worst[0].found.tolist() == [1]


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(UserError, match="has no image 99"):
        _ = analyse(truth(), CocoResults(), image_ids=[99])
