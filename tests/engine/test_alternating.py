"""Training some parts, and on the proposals of another detector: the four steps of the first Faster R-CNN."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from resdet.config import Config, load_config
from resdet.engine.checkpoint import read_model_file
from resdet.engine.train import train
from resdet.errors import UserError

NANO = Path(__file__).parents[2] / "configs/nano.yaml"
TINY = (
    "train.steps=2", "train.checkpoint_every=100", "data.shapes.train_images=4", "data.shapes.val_images=2",
    "train.device=cpu", "model.backbone.norm=none", "optim.warmup_steps=0",
)  # fmt: skip


def nano(*overrides: str) -> Config:
    return load_config(NANO, overrides=[*TINY, *overrides])


def weights(run: Path) -> dict[str, Tensor]:
    return dict(read_model_file(run / "checkpoints/step_00000002/model.safetensors").weights)


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """The top-level parts of what differs."""
    return {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Step 1: the first stage alone."""
    run = tmp_path_factory.mktemp("alternating") / "step1"
    metrics = train(nano("model.box_head=null"), run)
    assert {"recall/AR100", "recall/AR300"} <= metrics.keys()
    assert not any(name.startswith("roi_heads") for name in weights(run))
    return run


def test_the_four_steps(first: Path, tmp_path: Path) -> None:
    start, second, third, fourth = (tmp_path / name for name in ("start", "2", "3", "4"))
    _ = train(nano("train.steps=1", "optim.lr=0"), start)
    untrained = dict(read_model_file(start / "checkpoints/step_00000001/model.safetensors").weights)

    _ = train(nano(f"train.proposals={first}"), second)
    assert moved(untrained, weights(second)) == {"backbone", "neck", "roi_heads"}

    _ = train(nano(f"model.weights={second}", "train.parts=[rpn]"), third)
    assert moved(weights(second), weights(third)) == {"rpn"}

    _ = train(nano(f"model.weights={third}", "train.parts=[roi_heads]"), fourth)
    assert moved(weights(third), weights(fourth)) == {"roi_heads"}


def test_only_the_second_stage_has_losses_on_given_proposals(first: Path, tmp_path: Path) -> None:
    _ = train(nano(f"train.proposals={first}", "train.log_every=1"), tmp_path / "run")
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert "loss_classifier" in lines[0]
    assert "loss_objectness" not in lines[0]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.parts=[rnp]"], "names 'rnp', which is no part.*'rpn'"),
        (["train.parts=[]"], "leaves nothing to learn"),
        (["train.parts=[rpn]", "model.backbone.norm=bn"], "backbone, whose batch norms would still move"),
        (["train.proposals=nowhere"], "nowhere: no such file or folder"),
        (["train.proposals=nowhere", "model.box_head=null"], "does not have"),
    ],
)
def test_what_cannot_be_meant_is_refused(overrides: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        _ = train(nano(*overrides), tmp_path / "run")
    assert "\n" not in str(refusal.value)
