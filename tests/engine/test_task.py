"""Each task in the engine's own words: what decides, what a checkpoint states, and which one a config is of."""

import ast
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import resdet
from resdet.config import Config, load_config
from resdet.data.batches.loader import open_split
from resdet.engine.task.best import Goal
from resdet.engine.task.detection import Detection, FirstStage
from resdet.engine.task.table import TASKS, task_of
from resdet.errors import UserError
from resdet.models.classifier import Classifier
from resdet.models.rcnn import RCNN

PACKAGE = Path(resdet.__file__).parent


def classifier() -> Config:
    overrides = ["task=classification", "data.train.name=shapes_patches", "data.val.name=shapes_patches"]
    small = ["data.patches.train_images=6", "data.patches.val_images=3", "data.patches.size=8", "model.neck.name=fpn"]
    return load_config(Path(__file__).parents[2] / "configs/nano.yaml", overrides=[*overrides, *small])


def test_every_task_that_a_config_can_name_has_an_object():
    assert set(TASKS) == set(get_args(get_type_hints(Config)["task"]))


def test_no_other_file_asks_which_task_a_config_is_of():
    """To compare config.task with a name is the task table's; others ask the task for what they want to know."""
    asking = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Compare)
        for side, other in [(node.left, node.comparators[0]), (node.comparators[0], node.left)]
        if isinstance(side, ast.Attribute) and side.attr == "task" and isinstance(other, ast.Constant)
    }
    below = {"models/build/conventions.py"}  # what weights say of a model, on a floor that does not know the engine
    assert asking == {"engine/task/table.py"} | below


def test_a_detector_without_a_second_stage_is_decided_by_recall(nano: Config):
    assert (type(task_of(nano)), task_of(nano).headline) == (Detection, "bbox/AP")
    nano.model.box_head = None
    assert (type(task_of(nano)), task_of(nano).headline) == (FirstStage, "recall/AR1000")
    assert task_of(classifier()).headline == "top1/accuracy"


def test_each_task_builds_its_own_model(nano: Config):
    assert isinstance(task_of(nano).build(nano.model, 3), RCNN)
    assert isinstance(task_of(classifier()).build(classifier().model, 3), Classifier)


def test_a_checkpoint_states_the_classes_of_the_data_and_one_object_for_proposals(nano: Config):
    dataset = open_split(nano.data, "val")
    names, ids = Detection().saved_classes(dataset)
    assert dict(zip(ids, names, strict=True)) == Detection().categories(dataset)
    assert FirstStage().saved_classes(dataset) == (("object",), ids[:1])
    assert FirstStage().category_of_label(("object",), dataset) == {ids[0]: "object"}


@pytest.mark.parametrize("overfit", [None, 2])
def test_overfit_is_the_same_images_twice(nano: Config, overfit: int | None):
    for config in (nano, classifier()):
        config.train.overfit = overfit
        train_set, val_set = task_of(config).open_data(config)
        assert (train_set is val_set) == (overfit is not None)
        assert overfit is None or len(train_set) == overfit


def test_data_of_another_task_are_refused(nano: Config):
    nano.data.train.name = "shapes_patches"
    with pytest.raises(UserError, match="has no boxes; it is for task=classification"):
        _ = task_of(nano).open_data(nano)
    config = classifier()
    config.data.train.name = "shapes"
    with pytest.raises(UserError, match="is not for task=classification"):
        _ = task_of(config).open_data(config)


def test_the_fingerprint_follows_the_boxes(nano: Config):
    dataset = open_split(nano.data, "train")
    before = Detection().fingerprint(dataset)
    assert Detection().fingerprint(open_split(nano.data, "train")) == before
    dataset.boxes[0, 0] += 1
    assert Detection().fingerprint(dataset) != before


@pytest.mark.parametrize("higher", [True, False])
def test_only_a_better_figure_is_the_best(*, higher: bool) -> None:
    goal, better, worse = Goal("a", "a", higher_is_better=higher), 0.6 if higher else 0.4, 0.4 if higher else 0.6
    assert goal.improves(better, 0.5)
    assert goal.improves(0.5, None)
    for value in (worse, 0.5, None):
        assert not goal.improves(value, 0.5)
    assert not goal.improves(None, None)
