"""Neither a step on a GPU nor a prediction waits for the device; a run waits where it logs, saves or evaluates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from resdet.analysis.benchmark.timing import Contest
from resdet.analysis.gpu.waits import events, host_waits, runs
from resdet.config import load_config
from resdet.engine.train import train
from resdet.engine.train.state import TrainState
from resdet.engine.train.update import update

pytestmark = pytest.mark.gpu

LAYOUTS = {
    "faster": [],
    "mask": ["model.mask_head={name: fcn, channels: 8, resolution: 5}"],
    "cascade": ["model.cascade={}"],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_waits_are_counted_by_the_debug_mode(layout: str, device: torch.device) -> None:
    config = load_config("nano", overrides=[*LAYOUTS[layout], f"train.device={device.type}"])
    functions = runs(Contest(config, size=(64, 96), against=None), 2)
    for function in functions.values():
        _ = function()  # lazy initializations wait too
    seen = {name: host_waits(function, device) for name, function in functions.items()}
    assert seen["forward and backward"] == []
    assert seen["prediction"] == []
    assert seen["training step"] == []


@pytest.mark.parametrize("more", [[], ["optim.name=adamw"], ["train.ema={}"], ["model.backbone.norm=bn"]])
def test_a_run_waits_in_no_step_that_it_does_not_log(
    more: list[str], device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first step makes the state of the optimizer, and is said as a sign of life."""
    seen: dict[int, list[str]] = {}

    def watched(state: TrainState, *rest: Any) -> dict[str, float]:
        step, records = state.step, []
        seen[step] = host_waits(lambda: records.append(update(state, *rest)), device)
        return records[0]

    monkeypatch.setattr("resdet.engine.train.loop.update", watched)
    overrides = ["train.steps=8", "train.log_every=100", "data.shapes.val_images=2", f"train.device={device.type}"]
    _ = train(load_config("nano", overrides=[*overrides, *more]), tmp_path / "run")
    assert list(seen) == list(range(8))
    assert {step: places for step, places in seen.items() if places and step > 0} == {}


@pytest.mark.parametrize("images", [1, 4])
def test_launches_do_not_grow_with_the_images(images: int, device: torch.device) -> None:
    contest = Contest(load_config("nano", overrides=[f"train.device={device.type}"]), size=(64, 96), against=None)
    counted = []
    for count in (2, images):
        function = runs(contest, count)["forward and backward"]
        _ = function()
        seen = events(function, device)
        names = [name for name in seen if name.startswith("resdet::") or "Launch" in name]
        counted.append({name: seen[name] for name in names})
    assert counted[0].keys() == counted[1].keys()
    assert sum(counted[0].values()) == pytest.approx(sum(counted[1].values()), rel=0.05)
