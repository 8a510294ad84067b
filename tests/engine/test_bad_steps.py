"""A loss or gradient that is not finite changes no weight; training and its rehearsal say the same about it."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from exact_resume import weights_hash
from torch import Tensor, nn

from resdet.config import Config
from resdet.engine.checkpoint import checkpoints
from resdet.engine.train import train
from resdet.errors import UserError
from resdet.structures import Batch


def broken_at(step: int, kind: str) -> Any:
    """The nano model with a loss (or only a gradient) that is not finite at one step."""
    from resdet.models.build.detector import build_model

    def build(*arguments: Any) -> nn.Module:
        model = build_model(*arguments)
        forward, calls = model.forward, iter(range(1000))

        def broken(batch: Batch) -> dict[str, Tensor]:
            losses = forward(batch)
            if next(calls) >= step:
                loss = losses["loss_classifier"]
                # sqrt at 0: the value is 0, the gradient infinite
                losses["loss_classifier"] = loss * math.nan if kind == "loss" else loss + (loss * 0).sqrt()
            return losses

        model.forward = broken  # pyright: ignore[reportAttributeAccessIssue]
        return model

    return build


def test_a_loss_that_is_not_finite_stops_before_the_update(
    tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch
):
    nano.train.checkpoint_every = 1
    monkeypatch.setattr("resdet.engine.task.detection.build_model", broken_at(4, "loss"))
    optimizer_steps = []
    real = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self: optimizer_steps.append(real(self)))
    with pytest.raises(UserError, match=r"step 4: loss_classifier is nan.*bad_step.json") as error:
        _ = train(nano, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert len(optimizer_steps) == 4
    dump = json.loads((tmp_path / "run/bad_step.json").read_text())
    assert dump["step"] == 4
    assert dump["losses"]["loss_classifier"] == "nan"
    assert len(dump["images"]) == 2
    assert {"image_id", "file_name"} == dump["images"][0].keys()
    assert checkpoints(tmp_path / "run")[-1].name == "step_00000004"


def test_gradients_that_are_not_finite_are_left_out_and_too_many_are_an_error(
    tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch
):
    nano.train.steps, nano.train.keep_checkpoints = 30, 10
    monkeypatch.setattr("resdet.engine.task.detection.build_model", broken_at(2, "gradient"))
    with pytest.raises(UserError, match=r"10 gradients in a row were not finite"):
        _ = train(nano, tmp_path / "run")
    assert "step 2: the gradient is not finite; update left out (1 in a row)" in (tmp_path / "run/log.txt").read_text()
    assert weights_hash(tmp_path / "run", 3) == weights_hash(tmp_path / "run", 9)


def test_a_dry_run_stops_at_a_loss_that_is_not_finite_as_training_does(
    tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("resdet.engine.task.detection.build_model", broken_at(1, "loss"))
    with pytest.raises(UserError, match="step 1: loss_classifier is nan") as in_training:
        _ = train(nano, tmp_path / "run")
    with pytest.raises(UserError, match="step 1: loss_classifier is nan") as rehearsed:
        _ = train(nano, tmp_path / "dry", dry_run=True)
    dump = f"; {tmp_path}/run/bad_step.json names the images"
    assert str(in_training.value).replace(dump, "; it came from the images") == str(rehearsed.value)
    assert not (tmp_path / "dry").exists()
