"""With `train.parallel=fsdp` each of several processes keeps a share of the weights, and the training is the same."""

from __future__ import annotations

import copy
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from exact_resume import assert_same, logged
from test_distributed import check_metrics, in_processes
from torch import nn
from torch.testing import assert_close

from resdet.config import Config, load_config
from resdet.engine.checkpoint import MODEL, checkpoint_path, checkpoints, read_model_file, read_state
from resdet.engine.evaluate_checkpoint import evaluate_checkpoint
from resdet.engine.train import train
from resdet.engine.train.state import TrainState
from resdet.errors import UserError
from resdet.models.build.detector import build_model

NANO = Path(__file__).parents[2] / "configs/nano.yaml"
STEPS = 10
# Blocks of a timm backbone are shards by themselves. Recomputation puts their weights together once more.
LARGE = (
    "model.backbone={name: timm/test_resnet, norm: frozen_bn, frozen_stages: 1}", "optim.name=adamw", "optim.lr=0.01",
    "train.recompute=true", f"train.steps={STEPS}", "train.checkpoint_every=5", "eval.every=5", "train.batch_size=4",
    "model.mask_head.channels=8",
)  # fmt: skip


def trained(folder: Path, arguments: list[str], *more: str) -> str:
    """The output of a run of two processes."""
    done = in_processes(2, [*arguments, *LARGE, *more, "--output", str(folder)])
    assert [process.returncode for process in done] == [0, 0], done[0].stderr + done[1].stderr
    return done[0].stdout


def content(run: Path, step: int = STEPS) -> tuple[dict[str, Any], dict[str, Any]]:
    path = checkpoint_path(run, step)
    return read_model_file(path / MODEL).weights, read_state(path)


def test_the_weights_are_put_together_once_for_an_evaluation_and_the_checkpoint_after_it() -> None:
    model = build_model(load_config(NANO).model, 3)
    state = TrainState(model, torch.optim.SGD(model.parameters(), lr=0.1), gathered=copy.deepcopy(model), step=1)
    name = next(name for name, parameter in model.named_parameters() if parameter.requires_grad)

    def gathered_after(weight: float, *, within_update: bool = False) -> float:
        _ = nn.init.constant_(model.get_parameter(name), weight)
        state.gather(within_update=within_update)
        return state.whole.get_parameter(name).flatten()[0].item()

    assert gathered_after(2.0) == 2
    assert gathered_after(3.0) == 2, "between two updates weights stay as they are: they are not asked for again"
    state.step += 1
    assert gathered_after(4.0) == 4
    assert gathered_after(5.0, within_update=True) == 5
    assert gathered_after(6.0) == 6, "after a look within an update"


def test_shards_train_evaluate_save_and_resume_as_whole_weights_do(tmp_path: Path, nano_arguments: list[str]) -> None:
    sharded, whole = tmp_path / "two", tmp_path / "one"
    said = trained(sharded, nano_arguments, "train.parallel=fsdp")
    _ = trained(whole, nano_arguments)
    own, every = map(int, re.findall(r"keeps (\d+) of (\d+) weights", said)[0])
    assert 0.45 * every < own < 0.55 * every, "half of them, and what no half divides"
    check_metrics(tmp_path)  # losses, and the figures of both evaluations
    (weights, state), (its_weights, its_state) = content(sharded), content(whole)
    assert weights.keys() == its_weights.keys()
    for name, weight in weights.items():
        assert_close(weight, its_weights[name], rtol=1e-3, atol=1e-5)
    for number, values in state["optimizer"]["state"].items():
        assert type(values["exp_avg"]) is torch.Tensor
        assert_close(values, its_state["optimizer"]["state"][number], rtol=1e-2, atol=1e-5)

    figures = evaluate_checkpoint(sharded, output=tmp_path / "evaluated").figures  # by this process alone
    last = logged(sharded)[-1]
    assert {name: figures[name] for name in figures if name in last} == {
        name: last[name] for name in figures if name in last
    }
    assert figures["bbox/AP"] == last["bbox/AP"]

    resumed = tmp_path / "resumed"
    _ = shutil.copytree(sharded, resumed)
    for path in checkpoints(resumed)[1:]:
        shutil.rmtree(path)
    _ = trained(resumed, nano_arguments, "train.parallel=fsdp", "--resume")
    for ours, theirs in zip(content(resumed), content(sharded), strict=True):
        assert_same(ours, theirs, "checkpoint")
    assert logged(resumed) == logged(sharded)

    config, *overrides = nano_arguments
    shutil.rmtree(checkpoints(resumed)[-1])
    _ = train(load_config(config, overrides=[*overrides, *LARGE]), resumed, resume=True)  # one process, from step 5
    for name, weight in content(resumed)[0].items():
        assert_close(weight, its_weights[name], rtol=1e-3, atol=1e-5)


def test_a_step_of_shards_that_is_not_finite_is_examined_and_saved(tmp_path: Path, nano_arguments: list[str]) -> None:
    """Both processes examine their images with the whole weights, and neither waits for the other for ever."""
    rates = ["optim.lr=1e30", "optim.warmup_steps=0", "train.grad_clip=null", "train.parallel=fsdp"]
    done = in_processes(2, [*nano_arguments, *rates, "--output", str(tmp_path / "run")])
    assert [process.returncode for process in done] == [2, 2], done[0].stderr + done[1].stderr
    assert "loss_classifier is nan" in done[0].stderr
    assert "likely the learning rate: a weight has grown to" in done[0].stderr
    assert (tmp_path / "run/bad_step.json").exists()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.accumulate=2", "train.accumulate"),
        ("train.ema.decay=0.9", "train.ema"),
        ("train.compile=true", "train.compile"),
        ("train.precise_bn=2", "train.precise_bn"),
        ("train.amp=fp16", "train.amp=fp16"),
        ("optim.fused=true", "optim.fused=true"),
        ("optim.name=timm/lamb", "optim.name=sgd, adam, adamw, not with timm/lamb"),
    ],
)
def test_what_does_not_go_with_shards_is_one_line(
    tmp_path: Path, nano_arguments: list[str], override: str, words: str
) -> None:
    config, *overrides = nano_arguments
    chosen: Config = load_config(config, overrides=[*overrides, "train.parallel=fsdp", override])
    with pytest.raises(UserError, match=f"train.parallel=fsdp .*{re.escape(words)}"):
        _ = train(chosen, tmp_path / "run")
