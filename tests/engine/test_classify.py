"""Classification trains with the detectors' loop: resumed to the last bit, stopped by signals, scored by pencil."""

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from resdet.config import Config, load_config
from resdet.data.sets.labelled import LabelledImages
from resdet.engine.checkpoint import checkpoint_path, checkpoints, read_model_file
from resdet.engine.evaluate.classifier import evaluate_classifier
from resdet.engine.evaluate_checkpoint import evaluate_checkpoint
from resdet.engine.saved_models import load_model
from resdet.engine.signals import Stopped
from resdet.engine.train import train
from resdet.engine.train.state import TrainState
from resdet.engine.train.update import update
from resdet.errors import UserError
from resdet.structures import Batch
from resdet.version import __version__

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tiny() -> Config:
    return load_config(
        ROOT / "configs/cifar/patches.yaml",
        overrides=[
            "model.backbone.name=nano",
            "data.patches={train_images: 16, val_images: 12, size: 8}",
            "train={steps: 6, batch_size: 4, log_every: 1, checkpoint_every: 3}",
            "eval={every: 3, train_images: 16}",
        ],
    )


def weights(run: Path, step: int) -> dict[str, Tensor]:
    return read_model_file(checkpoint_path(run, step) / "model.safetensors").weights


def test_a_run_leaves_its_figures_and_can_be_evaluated_again(tmp_path: Path, tiny: Config, read_metrics: Any):
    metrics = train(tiny, tmp_path / "run")
    assert set(metrics) == {"top1/error", "top1/accuracy", "top1/loss", "top5/error", "train/error", "train/loss"}
    assert json.loads((tmp_path / "run/eval.json").read_text()) == {"resdet": __version__, **metrics, "step": 6}
    lines = read_metrics(tmp_path / "run")
    assert [line["step"] for line in lines if "top1/error" in line] == [3, 6]
    assert [line["step"] for line in lines if "loss_classifier" in line] == [1, 2, 3, 4, 5, 6]
    again = evaluate_checkpoint(checkpoint_path(tmp_path / "run", 6), output=tmp_path / "again").figures
    assert again == metrics
    assert json.loads((tmp_path / "again/eval.json").read_text())["top1/error"] == metrics["top1/error"]


def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, tiny: Config, read_metrics: Any):
    _ = train(tiny, tmp_path / "whole")
    tiny.train.keep_checkpoints = 5
    _ = train(tiny, tmp_path / "cut")
    _ = train(tiny, tmp_path / "resumed", resume=checkpoint_path(tmp_path / "cut", 3))
    for name, tensor in weights(tmp_path / "whole", 6).items():
        assert torch.equal(tensor, weights(tmp_path / "resumed", 6)[name]), name
    steps = {line["step"]: line["loss"] for line in read_metrics(tmp_path / "whole") if "loss" in line}
    later = {line["step"]: line["loss"] for line in read_metrics(tmp_path / "resumed") if "loss" in line}
    assert later == {step: loss for step, loss in steps.items() if step > 3}


def test_sigterm_saves_and_the_resumed_run_ends_with_the_same_bits(
    tmp_path: Path, tiny: Config, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(state: TrainState, *rest: Any) -> dict[str, float]:
        record = update(state, *rest)
        if state.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return record

    _ = train(tiny, tmp_path / "whole")
    monkeypatch.setattr("resdet.engine.train.loop.update", interrupted)
    with pytest.raises(Stopped, match="stopped by SIGTERM at step 5, saved"):
        _ = train(tiny, tmp_path / "run")
    assert checkpoints(tmp_path / "run")[-1].name == "step_00000005"
    monkeypatch.undo()
    _ = train(tiny, tmp_path / "run", resume=True)
    for name, tensor in weights(tmp_path / "whole", 6).items():
        assert torch.equal(tensor, weights(tmp_path / "run", 6)[name]), name


class Oracle(nn.Module):
    """Says 3/4 for the class that the red of the first pixel names, and shares the rest among the other three."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def predict(self, batch: Batch) -> Tensor:
        named = batch.images[:, 0, 0, 0].long()
        return torch.full((len(named), 4), 1 / 12).scatter(1, named[:, None], 0.75)


def images_that_name(classes: list[int], labels: list[int]) -> LabelledImages:
    pixels = np.zeros((len(classes), 8, 8, 3), np.uint8)
    pixels[:, 0, 0, 0] = classes
    return LabelledImages(Path("drawn"), pixels, np.array(labels), ("a", "b", "c", "d"))


def test_error_and_loss_by_hand(tiny: Config):
    train_set = images_that_name([0, 1] * 10, [0, 1] * 10)
    val_set = images_that_name([0, 1, 2, 3, 0] * 100, [0, 1, 2, 3, 3] * 100)  # more than one batch of them
    figures = evaluate_classifier(Oracle(), train_set, val_set, tiny)
    assert figures["top1/error"] == pytest.approx(0.2)
    assert figures["top1/accuracy"] == pytest.approx(0.8)
    assert figures["top1/loss"] == pytest.approx(-(4 * math.log(0.75) + math.log(1 / 12)) / 5)
    assert figures["train/error"] == 0
    assert figures["train/loss"] == pytest.approx(-math.log(0.75))


def test_overfit_scores_the_images_it_trained_on(tmp_path: Path, tiny: Config):
    tiny.train.steps, tiny.train.overfit = 3, 4
    metrics = train(tiny, tmp_path / "run")
    assert metrics["top1/error"] == metrics["train/error"]
    assert evaluate_checkpoint(tmp_path / "run").figures == metrics


def test_a_dry_run_writes_nothing(tmp_path: Path, tiny: Config, capsys: pytest.CaptureFixture[str]):
    assert train(tiny, tmp_path / "run", dry_run=True) == {}
    assert "s a step" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_training_can_start_from_another_classifier(tmp_path: Path, tiny: Config):
    _ = train(tiny, tmp_path / "first")
    tiny.model.weights = str(tmp_path / "first")
    tiny.optim.lr = 0.0
    _ = train(tiny, tmp_path / "second")
    theirs = weights(tmp_path / "first", 6)
    for name, tensor in weights(tmp_path / "second", 6).items():
        if "running" not in name and "num_batches" not in name:
            assert torch.equal(tensor, theirs[name]), name


def test_the_two_tasks_do_not_take_each_other_for_theirs(tmp_path: Path, tiny: Config):
    _ = train(tiny, tmp_path / "run")
    with pytest.raises(UserError, match="is a classifier, which finds no boxes; give a detector"):
        _ = load_model(tmp_path / "run")
    tiny.task = "detection"
    with pytest.raises(UserError, match=r"shapes_patches has no boxes; it is for task=classification"):
        _ = train(tiny, tmp_path / "other")
    tiny.task, tiny.data.train.name = "classification", "coco2017"
    with pytest.raises(UserError, match=r"data.train.name=coco2017 is not for task=classification"):
        _ = train(tiny, tmp_path / "other")
    with pytest.raises(UserError, match=r"task=clasification is not known; did you mean 'classification'"):
        _ = load_config(overrides=["task=clasification"])


def test_files_of_objects_are_not_left_unread(tmp_path: Path, tiny: Config):
    tiny.data.val.annotations = "val.json"
    with pytest.raises(
        UserError, match=r"data.val.annotations=val.json: task=classification has images and classes from"
    ):
        _ = train(tiny, tmp_path / "run")


def test_images_must_survive_the_poolings_of_a_vgg(tmp_path: Path, tiny: Config):
    tiny.model.backbone.name = "vgg16"
    with pytest.raises(
        UserError, match=r"vgg16 .* halves an image five times and needs 32 pixels a side, and those of .* have 8"
    ):
        _ = train(tiny, tmp_path / "run")


def test_cifar_that_is_not_there_says_where_it_belongs(tmp_path: Path, tiny: Config):
    tiny.data.train.name, tiny.data.root = "cifar10", str(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"nowhere/cifar10/cifar-10-batches-py/data_batch_1 is missing; unpack"):
        _ = train(tiny, tmp_path / "run")
    assert not (tmp_path / "run").exists()
