"""Where `config.test` counts: in every evaluation of a trained detector, from Python too, and not during training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from resdet.config import Config, load_config
from resdet.data.batches.loader import open_split
from resdet.engine.evaluate import evaluate
from resdet.engine.evaluate_checkpoint import evaluate_checkpoint
from resdet.engine.train import train
from resdet.errors import UserError
from resdet.models.build.detector import build_model
from resdet.models.rcnn import RCNN

NANO = Path(__file__).parents[2] / "configs/nano.yaml"
FLIP = "test.augmentation.flip=true"


def nano(*overrides: str) -> Config:
    tiny = ("train.steps=2", "train.device=cpu", "data.shapes.train_images=4", "data.shapes.val_images=2")
    return load_config(NANO, overrides=[*tiny, "model.box_head.score_threshold=0.0", "eval.batch_size=1", *overrides])


def model_of(config: Config) -> RCNN:
    _ = torch.manual_seed(0)
    return build_model(config.model, 8)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("cascade", ["model.cascade=null", "model.cascade={}"])
def test_an_evaluation_from_python_adds_the_parts_of_the_config(cascade: str, *, training: bool) -> None:
    """With flip the backbone sees each of the two images twice; the model keeps its mode."""
    plain = nano(cascade)
    model, seen = model_of(plain).train(training), []
    modes = [module.training for module in model.modules()]
    _ = model.backbone.register_forward_hook(lambda module, inputs, output: seen.append(module.training))
    dataset = open_split(plain.data, "val")
    _ = evaluate(model, dataset, plain)
    assert seen == [False] * 2
    _ = evaluate(model, dataset, nano(cascade, FLIP))
    assert seen == [False] * 6
    assert [module.training for module in model.modules()] == modes


def test_a_part_that_a_detector_cannot_have_is_one_line() -> None:
    config = nano("model.box_head=null", FLIP)
    with pytest.raises(UserError, match=r"this one has none \(model.box_head=null\)") as refusal:
        _ = evaluate(model_of(config), open_split(config.data, "val"), config)
    assert "\n" not in str(refusal.value)


def test_evaluations_in_training_go_without_and_those_of_the_run_go_with_them(tmp_path: Path) -> None:
    for name, overrides in (("plain", ()), ("flip", (FLIP,))):
        _ = train(nano(*overrides), tmp_path / name)
        _ = evaluate_checkpoint(tmp_path / name, output=tmp_path / f"{name}_again")
    found = {name: (tmp_path / name / "predictions.json").read_bytes() for name in ("plain", "flip")}
    again = {name: (tmp_path / f"{name}_again" / "predictions.json").read_text() for name in ("plain", "flip")}
    assert found["plain"] == found["flip"]
    assert again["plain"] != again["flip"]
