import numpy as np
import pytest

from resdet.coco.ground_truth import ground_truth_from_dict
from resdet.coco.results import CocoResults
from resdet.evaluation.coco import evaluate_coco
from resdet.evaluation.metrics import CLASSIFICATION_FIGURES, METRICS, by_class, figure, meaning, overall
from resdet.evaluation.proposals import evaluate_proposals
from resdet.evaluation.voc import evaluate_voc


def test_every_figure_that_an_evaluation_gives_has_a_row():
    truth = ground_truth_from_dict(
        {
            "images": [{"id": 1}],
            "categories": [{"id": 1, "name": "cat/dog"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 20], "area": 400}],
        }
    )
    results = CocoResults()
    results.add(1, np.array([[0.0, 0, 20, 20]]), np.array([0.9]), np.array([1]))
    figures = evaluate_coco(truth, results) | evaluate_proposals(truth, results) | evaluate_voc(truth, results)
    without = [name for name in overall(figures) if figure(name) is None]
    assert not without
    assert set(by_class(figures)) == {"cat/dog"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("segm/AP", "average precision, mean over IoU .50:.95"),
        ("bbox/AP75", "average precision at IoU .75"),
        ("bbox/AR100", "average recall, best 100 an image"),
        ("bbox/ARs", "AR of small objects, up to 32x32 pixels"),
        ("recall/ARm300", "AR of medium objects, best 300"),
        ("voc/AP50", "Pascal VOC average precision at IoU .50, mean over classes"),
        ("bbox/unknown", ""),
        ("loss", ""),
    ],
)
def test_a_figure_in_words(name: str, words: str):
    assert meaning(name) == words


def test_errors_are_better_when_lower_and_all_other_figures_when_higher():
    rows = [*(row for metric in METRICS.values() for row in metric.figures), *CLASSIFICATION_FIGURES]
    assert [row.name for row in rows if not row.higher_is_better] == [
        "loc/top([15])_error",
        "loc/top5_class_error",
        "loc/given_class_error",
        "top1/error",
        "top5/error",
        "train/error",
    ]
