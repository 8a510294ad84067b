"""The arithmetic of the report's parts, by pencil."""

import numpy as np
import pytest

from resdet.analysis.report.marks import MOST_TAGS, Mark, labelled
from resdet.analysis.report.mistakes import MOST_CONFUSED, most_confused
from resdet.analysis.report.pictures import Picture, data_uri, outline_path, shrunk
from resdet.analysis.report.scored import own_score
from resdet.analysis.report.setup import changed
from resdet.analysis.report.training import FEWEST_TO_SMOOTH, _smooth, running_mean
from resdet.config import Config, load_config
from resdet.data.images.masks import MaskWindow
from resdet.engine.task.table import task_of
from resdet.evaluation.analysis.curves import PrecisionRecall


def test_a_running_mean_is_the_line_through_the_neighbours_on_both_sides():
    assert running_mean([1.0, 2.0, 6.0, 4.0], 1) == pytest.approx([0.5, 3.0, 4.0, 5.0]), "the lines through three"
    assert running_mean([0.0, 9.0, 9.0, 9.0, 3.0], 5) == pytest.approx([4.8, 5.4, 6.0, 6.6, 7.2])  # one line for all


def test_a_running_mean_leaves_out_what_is_undefined():
    assert running_mean([1.0, None, 3.0], 1) == [1.0, 2.0, 3.0]
    assert running_mean([None, float("nan")], 1) == [None, None]


def test_a_running_mean_does_not_end_in_the_last_value():
    """An outlier at the end moves the curve there by a small part of its height."""
    for count in (FEWEST_TO_SMOOTH, 50, 100, 1000):
        _, smooth = _smooth("loss", [float(step) for step in range(count)], [1.0] * (count - 1) + [2.0], 1)
        last = smooth.y[-1]
        assert last is not None
        assert last < 1.33


def test_a_straight_line_is_its_own_running_mean():
    line = [0.5 * i for i in range(50)]
    assert running_mean(line, 7) == pytest.approx(line)


def test_the_config_shows_what_differs_from_the_defaults_and_nothing_else():
    assert changed(Config()) == {}
    config = load_config(overrides=["train.seed=7", "model.mask_head.name=fcn", "data.augment.short_side=[640,800]"])
    differences = changed(config)
    assert differences["train.seed"] == (7, 0)
    assert differences["data.augment.short_side"] == ([640, 800], [800])
    assert differences["model.mask_head.name"] == ("fcn", None)
    assert {key.rpartition(".")[0] for key in differences} <= {"train", "data.augment", "model.mask_head", "model"}


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "Faster R-CNN (FPN)"),
        (["model.mask_head.name=fcn"], "Mask R-CNN (FPN)"),
        (["model.cascade.ious=[0.5,0.6,0.7]"], "Cascade R-CNN (FPN)"),
        (["model.cascade.ious=[0.5,0.6,0.7]", "model.mask_head.name=fcn"], "Cascade Mask R-CNN (FPN)"),
        (["model.box_head=null"], "RPN (FPN)"),
        (["task=classification"], "classifier"),
    ],
)
def test_a_model_has_its_usual_name(overrides: list[str], name: str):
    config = load_config(overrides=overrides)
    assert task_of(config).describe(config.model) == name


def curves(best_score: list[float]) -> PrecisionRecall:
    k = len(best_score)
    return PrecisionRecall(
        recalls=np.linspace(0, 1, 101),
        ious=("0.50", "0.75", "0.50:0.95"),
        precision=np.zeros((3, k, 101)),
        mean=np.zeros((3, 101)),
        best_score=np.array(best_score),
        best_f1=np.zeros(k),
    )


@pytest.mark.parametrize(
    ("best", "expected"),
    [([0.9, 0.8], 0.5), ([0.9, 0.33, 0.1], 0.3), ([0.01, 0.02], 0.05), ([float("nan")], 0.5), ([], 0.5)],
)
def test_a_detector_without_high_scores_is_judged_at_lower_ones(best: list[float], expected: float):
    assert own_score(curves(best)) == expected


def test_the_matrix_keeps_the_classes_that_are_confused_and_the_background():
    counts = np.zeros((31, 31), np.int64)
    counts[np.arange(30), np.arange(30)] = 5
    counts[20, 25] = 3
    counts[7, 20] = 1
    chosen = most_confused(counts)
    assert len(chosen) == MOST_CONFUSED + 1
    assert chosen[-1] == 30
    assert {7, 20, 25} <= set(chosen)
    assert chosen == sorted(chosen)


def test_an_outline_runs_through_the_middles_of_the_outermost_pixels():
    window = MaskWindow(np.ones((3, 5), np.uint8), x=10, y=20)
    spots = set(outline_path(window, 2.0).strip("MZ").split("L"))
    # Pixels 10 .. 14 across and 20 .. 22 down, in units of half a pixel.
    assert spots == {"21.0 41.0", "29.0 41.0", "29.0 45.0", "21.0 45.0"}
    assert outline_path(MaskWindow(np.zeros((0, 0), np.uint8), 0, 0), 2.0) == ""


def test_labels_do_not_lie_on_one_another_and_stay_on_the_picture():
    marks = [Mark(100.0, 100.0 + i, 50.0, 40.0, "triangle", "#fff", "found", score=0.9 - 0.1 * i) for i in range(9)]
    tags = [mark.tag for mark in labelled(marks, 300.0, 390.0) if mark.tag is not None]
    assert tags[0][:2] == (100.0, 84.0)
    assert 2 <= len(tags) < 9  # not all have room
    for i, (x1, y1, x2, y2) in enumerate(tags):
        assert all(x2 <= other[0] or other[2] <= x1 or y2 <= other[1] or other[3] <= y1 for other in tags[:i])
    corner = labelled([Mark(290.0, 1.0, 9.0, 9.0, "triangle", "#fff", "truth")], 300.0, 390.0)[0].tag
    assert corner is not None
    assert 0 <= corner[0] < corner[2] <= 300
    assert corner[1] >= 9


def test_the_label_of_an_object_that_fills_the_picture_stands_below_it():
    (mark,) = labelled([Mark(0.0, 0.0, 300.0, 200.0, "circle", "#fff", "truth")], 300.0, 200.0)
    assert mark.tag is not None
    assert mark.tag[1] >= 200
    picture = Picture("g0", "a.png", "data:,", 300.0, 200.0, truth=[mark])
    assert picture.bottom == mark.tag[3] + 2


def test_of_many_objects_the_first_of_each_kind_have_labels():
    """Far apart, so that all would have room."""
    kinds = ["missed"] * 20 + ["false"] * 20 + ["right"] * 5
    marks = [
        Mark(5.0 + 60 * (i % 9), 20.0 + 60 * (i // 9), 20.0, 20.0, "cat", "#fff", kind) for i, kind in enumerate(kinds)
    ]
    named = [mark.kind for mark in labelled(marks, 600.0, 400.0) if mark.tag]
    assert len(named) == MOST_TAGS
    assert named.count("missed") == named.count("false")


def test_images_are_never_enlarged_and_keep_their_shape():
    assert shrunk(np.zeros((50, 100, 3), np.uint8), 400).shape == (50, 100, 3)
    assert shrunk(np.zeros((500, 1000, 3), np.uint8), 400).shape == (200, 400, 3)
    assert shrunk(np.zeros((2, 4000, 3), np.uint8), 400).shape == (1, 400, 3)
    assert data_uri(np.zeros((8, 8, 3), np.uint8), side=8, quality=80).startswith("data:image/jpeg;base64,/9j/")
