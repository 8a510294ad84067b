"""A step on a GPU waits for the device once, where it reads its losses; a prediction does not wait."""

from __future__ import annotations

import pytest
import torch

from resdet.analysis.benchmark.timing import Contest
from resdet.analysis.gpu.waits import events, host_waits, runs
from resdet.config import load_config

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
    assert len(seen["training step"]) <= 1, "the losses and the norm of the gradients are read together"


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
