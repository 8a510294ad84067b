"""What makes a step slow and does not depend on the clock: operators, compilations and memory are counted."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from resdet.analysis.benchmark.memory import peak_memory
from resdet.analysis.benchmark.timing import Contest
from resdet.config import load_config

LAYOUTS = {
    "faster": [],
    "mask": ["model.mask_head={name: fcn, channels: 8, resolution: 5}"],
    "cascade": ["model.cascade={}"],
}
# Of a training step and of a prediction at most. In November 2026: 1259 and 497, 1636 and 667, 2334 and 898.
OPERATORS = {
    "faster": (1400, 550),
    "mask": (1800, 740),
    "cascade": (2570, 990),
}
CPU = torch.device("cpu")
MIB = 2**20
MEMORY = 9  # MiB at most, of a training step on four images of 128 x 128 pixels; 7.7 in November 2026


class Operators(TorchDispatchMode):
    """Counts operators; one of ours counts once, whatever it does inside."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


def parts(layout: str, images: int, size: tuple[int, int] = (64, 64)) -> dict[str, Callable[[], object]]:
    """A training step and a prediction of the nano detector."""
    contest = Contest(load_config("nano", overrides=[*LAYOUTS[layout], "train.device=cpu"]), size=size, against=None)
    runs = {name: contestants[0] for name, contestants in contest.of(images).items()}
    return {
        name: (lambda function=function, inputs=inputs: function(*inputs)) for name, (function, inputs) in runs.items()
    }


def operators(run: Callable[[], object]) -> Counter[str]:
    _ = run()  # state of the optimizer is made in the first step
    with Operators() as counted:
        _ = run()
    return counted.counts


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_step_has_as_many_operators_for_four_images_as_for_two_and_not_more_than_it_had(layout: str) -> None:
    two, four = ({name: operators(run) for name, run in parts(layout, images).items()} for images in (2, 4))
    assert two == four
    assert two["train"].total() <= OPERATORS[layout][0]
    assert two["predict"].total() <= OPERATORS[layout][1]


def test_memory_grows_in_proportion_to_the_images() -> None:
    one, two, four = (peak_memory(parts("mask", images, (128, 128))["train"], CPU) for images in (1, 2, 4))
    assert four - two == pytest.approx(2 * (two - one), rel=0.2)
    assert four <= MEMORY * MIB


# In a process of its own, without the type-checking import hook.
COMPILATIONS = """
import torch
from torch._dynamo.utils import counters
from resdet.analysis.benchmark.timing import NUM_CLASSES, random_batch
from resdet.config import load_config
from resdet.models.build.detector import build_model

model = build_model(load_config("nano").model, NUM_CLASSES)
compiled = torch.compile(model, backend="eager", fullgraph=True)
sides = [64, 96, 128, 160, 192, 224]
for step in range(12):
    size = sides[step % 6], sides[(step * 5 + step // 6) % 6]
    losses = compiled(random_batch(size, size, 2))
print(counters["stats"]["unique_graphs"])
"""
MOST_COMPILATIONS = 4  # for twelve shapes of batches: one, then with a height and a width that vary


@pytest.mark.slow
def test_many_shapes_of_batches_are_compiled_a_few_times() -> None:
    done = subprocess.run([sys.executable, "-c", COMPILATIONS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) <= MOST_COMPILATIONS
