"""The best checkpoint by any figure, the end of a training without improvement, and the losses on the val images."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from exact_resume import assert_resume_is_exact, logged
from interruption import terminate_in_evaluation

from resdet.config import Config, load_config
from resdet.data.batches.loader import evaluation_batches, open_split
from resdet.engine.checkpoint import checkpoints
from resdet.engine.distributed import World
from resdet.engine.evaluate.val_loss import validation_losses
from resdet.engine.run_folder import RunFiles
from resdet.engine.signals import Stopped, StopRequest
from resdet.engine.task.best import Goal, goal_of
from resdet.engine.task.table import task_of
from resdet.engine.train import train
from resdet.errors import UserError
from resdet.models.build.detector import build_model

CLASSES = ("cat", "traffic light", "a/b")


def goal(*overrides: str) -> Goal:
    config = load_config(overrides=overrides)
    return goal_of(task_of(config), config, CLASSES)


def test_a_goal_is_the_tasks_or_any_figure_with_its_direction() -> None:
    assert goal() == Goal("bbox/AP", "box AP")
    assert goal("eval.best=bbox/AP75").name == "bbox/AP75"
    assert goal("eval.best=bbox/AP/a/b").name == "bbox/AP/a/b"
    assert goal("eval.best=segm/AP", "model.mask_head.name=fcn").higher_is_better
    assert goal("eval.best=voc/AP50", "eval.metric=voc07").higher_is_better
    assert not goal("eval.best=val/loss", "eval.loss=true").higher_is_better
    assert not goal("eval.best=val/loss_objectness", "eval.loss=true").higher_is_better
    assert goal("eval.best=recall/AR300", "model.box_head=null").higher_is_better
    assert not goal("eval.best=top1/error", "task=classification").higher_is_better
    assert not goal("eval.best=top1/loss", "task=classification").higher_is_better


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["eval.best=box/AP"], r"eval.best=box/AP: the evaluations have no such figure; did you mean 'bbox/AP'\?"),
        (["eval.best=segm/AP"], r"eval.best=segm/AP: .* it comes with a mask head"),
        (["eval.best=voc/AP50"], r"eval.best=voc/AP50: .* it comes with another eval.metric"),
        (["eval.best=val/loss"], r"eval.best=val/loss: .* set eval.loss=true"),
        (["eval.best=bbox/AP/dog"], r"eval.best=bbox/AP/dog: is no figure of a class of the data"),
        (["eval.best=train/error", "task=classification"], r"eval.best=train/error: "),
        (["eval.best=AP"], r"eval.best=AP: the evaluations have no such figure"),
    ],
)
def test_a_figure_that_no_evaluation_has_is_an_error_before_training(overrides: list[str], line: str) -> None:
    with pytest.raises(UserError, match=line):
        _ = goal(*overrides)


def test_better_is_higher_or_lower_and_never_undefined() -> None:
    accuracy, error = Goal("a", "a"), Goal("e", "e", higher_is_better=False)
    assert accuracy.improves(0.0, None)
    assert accuracy.improves(0.3, 0.2)
    assert not accuracy.improves(0.2, 0.2)
    assert not error.improves(0.3, 0.2)
    assert error.improves(0.1, 0.2)
    assert not accuracy.improves(None, None)
    assert not error.improves(None, 0.5)


def scripted(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    """Evaluations find these figures in place of `bbox/AP75`, by the number of the evaluation."""
    from resdet.engine.task import detection

    real, calls = detection.evaluate, iter(values)

    def figures(*arguments: Any, **rest: Any) -> dict[str, float | None]:
        return real(*arguments, **rest) | {"bbox/AP75": next(calls)}

    monkeypatch.setattr(detection, "evaluate", figures)


@pytest.fixture
def impatient(nano: Config) -> Config:
    nano.train.steps, nano.eval.every, nano.eval.best, nano.train.patience = 50, 1, "bbox/AP75", 2
    return nano


def test_training_ends_when_the_figure_stays_below_its_best(
    tmp_path: Path, impatient: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [0.1, 0.3, 0.2, 0.25])
    run = tmp_path / "run"
    figures = train(impatient, run)
    assert figures["bbox/AP75"] == 0.25
    assert (run / "best").read_text() == "step_00000002\n"
    assert json.loads((run / "eval.json").read_text())["ended"] == "train.patience=2"
    assert json.loads((run / "eval.json").read_text())["step"] == 4
    assert "2 evaluations without a better bbox/AP75: training ends" in (run / "log.txt").read_text()
    assert RunFiles(run).is_finished(impatient), "for a comparison"
    assert train(impatient, run, resume=True) == figures
    assert "raise train.patience to go on" in (run / "log.txt").read_text()


def test_more_patience_goes_on(tmp_path: Path, impatient: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [0.3, 0.2, 0.1, 0.2, 0.4, 0.1])
    _ = train(impatient, tmp_path / "run")
    impatient.train.patience, impatient.train.steps = 3, 6
    _ = train(impatient, tmp_path / "run", resume=True)
    assert [line["step"] for line in logged(tmp_path / "run") if "bbox/AP" in line] == [1, 2, 3, 4]
    assert (tmp_path / "run/best").read_text() == "step_00000001\n"


@pytest.mark.parametrize("last", [0.15, 0.9])
def test_the_end_is_evaluated_with_precise_statistics_also_when_patience_ends_it(
    tmp_path: Path, impatient: Config, monkeypatch: pytest.MonkeyPatch, last: float
) -> None:
    impatient.model.backbone.norm, impatient.train.precise_bn = "bn", 2
    scripted(monkeypatch, [0.3, 0.2, 0.1, last])
    figures = train(impatient, tmp_path / "run")
    assert figures["bbox/AP75"] == last
    assert checkpoints(tmp_path / "run")[-1].name == "step_00000003"
    assert "precise BN: statistics of" in (tmp_path / "run/log.txt").read_text()


def test_patience_without_evaluations_is_an_error(tmp_path: Path, impatient: Config) -> None:
    impatient.eval.every = 0
    with pytest.raises(UserError, match=r"train.patience=2 counts evaluations, .* set eval.every"):
        _ = train(impatient, tmp_path / "run")


def test_a_resumed_run_ends_by_patience_where_the_whole_run_does(tmp_path: Path, impatient: Config) -> None:
    """The AP of this net is 0 throughout: the first evaluation is the best."""
    full = assert_resume_is_exact(impatient, tmp_path, at=(1, 2))
    assert json.loads((full / "eval.json").read_text())["ended"] == "train.patience=2"


def losses_of(nano: Config, seed: int = 0) -> dict[str, float | None]:
    _ = torch.manual_seed(seed)
    model = build_model(nano.model, 8)
    return validation_losses(model, open_split(nano.data, "val"), nano, world=World(), stop=StopRequest())


def test_val_losses_are_those_of_one_batch_of_all_images(nano: Config) -> None:
    nano.eval.batch_size = 4
    found = losses_of(nano)
    _ = torch.manual_seed(0)
    model = build_model(nano.model, 8).eval()
    (loaded,) = evaluation_batches(open_split(nano.data, "val"), nano, rank=0, world_size=1)
    with torch.no_grad():
        expected = {f"val/{name}": loss.item() for name, loss in model(loaded.batch).items()}
    assert found == pytest.approx({"val/loss": sum(expected.values()), **expected}, rel=1e-5)
    for size in (1, 3):
        nano.eval.batch_size = size
        assert losses_of(nano) == pytest.approx(found, rel=1e-5)


def test_val_losses_have_masks_where_the_model_has(nano: Config) -> None:
    masked = load_config(overrides=["model.mask_head.channels=8"])
    nano.model.mask_head = masked.model.mask_head
    found = losses_of(nano)["val/loss_mask"]
    assert found is not None
    assert found > 0


def test_the_lowest_val_loss_chooses_the_best_checkpoint_and_a_resume_is_exact(tmp_path: Path, nano: Config) -> None:
    nano.eval.loss, nano.eval.best, nano.eval.every = True, "val/loss", 2
    run = assert_resume_is_exact(nano, tmp_path)
    losses = {line["step"]: line["val/loss"] for line in logged(run) if "val/loss" in line}
    assert losses.keys() == {2, 4, 6}
    assert (run / "best").read_text().strip() == f"step_{min(losses, key=lambda step: losses[step]):08d}"


def test_a_signal_while_the_val_losses_are_computed_loses_nothing(
    tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    nano.eval.loss, nano.train.steps = True, 2
    terminate_in_evaluation(monkeypatch)
    with pytest.raises(Stopped):
        _ = train(nano, tmp_path / "run")
    monkeypatch.undo()
    assert "val/loss" in train(nano, tmp_path / "run", resume=True)


def test_a_classifier_has_its_loss_anyway(tmp_path: Path) -> None:
    config = load_config(overrides=["task=classification", "eval.loss=true", "data.train.name=shapes_patches"])
    with pytest.raises(UserError, match="top1/loss"):
        _ = train(config, tmp_path / "run")
