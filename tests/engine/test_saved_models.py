"""Trained models read back, alone and as an ensemble, from the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from resdet.cli.main import main
from resdet.config import Config, load_config
from resdet.engine.evaluate_checkpoint import evaluate_checkpoint
from resdet.engine.saved_models import built, read_models
from resdet.engine.train import train
from resdet.errors import UserError

NANO = Path(__file__).parents[2] / "configs/nano.yaml"


def nano(*overrides: str) -> Config:
    tiny = ("train.steps=2", "train.device=cpu", "data.shapes.train_images=4", "data.shapes.val_images=2")
    return load_config(NANO, overrides=[*tiny, *overrides])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    _ = train(nano(), folder)
    return folder


def test_an_ensemble_of_a_run_with_itself_scores_what_the_run_scores(run: Path) -> None:
    alone = evaluate_checkpoint(run).figures
    together = evaluate_checkpoint(run, also=[run]).figures
    assert together == pytest.approx(alone, abs=1e-6)


def test_the_classes_of_an_ensemble_must_be_the_same(run: Path, tmp_path: Path) -> None:
    truth = json.loads(_shapes(run).read_text())
    for category in truth["categories"]:
        category["name"] += "s"
    annotations = tmp_path / "renamed.json"
    _ = annotations.write_text(json.dumps(truth))
    images = _shapes(run).parents[1] / "train"
    files = [f"data.{split}={{annotations: {annotations}, images: {images}}}" for split in ("train", "val")]
    _ = train(nano(*files), tmp_path / "second")
    with pytest.raises(UserError, match=r"circles.* are not those of .*circle.*same names in the same order"):
        _ = read_models([run, tmp_path / "second"], ())


def _shapes(run: Path) -> Path:
    """The annotation file that a run has learned from."""
    line = next(line for line in (run / "log.txt").read_text().splitlines() if line.startswith("train: "))
    return Path(line.removeprefix("train: ").split(".json")[0] + ".json")


def test_evaluate_takes_runs_and_overrides_in_any_order(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "figures"
    parts = ["test.voting.iou=0.5", "test.refinement.nms_iou=0.3", "test.augmentation.flip=true"]
    assert main(["evaluate", str(run), *parts, str(run), "--output", str(output)]) == 0
    assert json.loads((output / "eval.json").read_text())["step"] == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.box_head=null", "not part of the model.*; the model was trained without model.box_head=null"),
        ("model.mask_head.name=fcn", "is missing.*; the model was trained without model.mask_head.name=fcn"),
        ("task=classification", "was trained for task=detection; leave task=classification out"),
    ],
)
def test_a_model_is_evaluated_as_it_was_trained(override: str, message: str, run: Path) -> None:
    with pytest.raises(UserError, match=message):
        _ = evaluate_checkpoint(run, overrides=[override])


def test_a_classifier_finds_no_boxes(run: Path) -> None:
    (model,) = read_models([run], ())
    classifier = replace(model.saved, config=replace(model.saved.config, task="classification"))
    with pytest.raises(UserError, match=r"model.safetensors: is a classifier, which finds no boxes; give a detector"):
        _ = built(replace(model, saved=classifier))


def test_predict_takes_an_ensemble_and_overrides(run: Path, tmp_path: Path) -> None:
    images = str(_shapes(run).parents[1] / "val")
    command = ["predict", str(run), images, "test.augmentation.flip=true", "--ensemble", str(run)]
    assert main([*command, "--output", str(tmp_path / "found")]) == 0
    assert (tmp_path / "found/predictions.json").exists()


def test_a_mistake_in_an_override_is_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(run), str(tmp_path), "test.votng.iou=0.5", "--output", str(tmp_path / "out")]) == 2
    assert main(["evaluate", "test.voting.iou=0.5"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "no CHECKPOINT given" in lines[1]
