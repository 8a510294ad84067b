"""How the cost of a detector grows: one quantity after another is changed, and the others stay (`--growth`)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from resdet.analysis.benchmark.guard import conditions
from resdet.analysis.benchmark.memory import peak_memory
from resdet.analysis.benchmark.timing import NUM_CLASSES, OBJECTS, Contest, alternate
from resdet.config import Config
from resdet.engine.distributed import World, choose_device, half_precision

MIB, GIGA = 2**20, 1e9
SIDE = 2048  # of the square matrices whose product measures the limit of the machine
PRODUCTS = 5


@dataclass(frozen=True)
class Setting:
    """What a step is measured on; `size` is the height and width of the images."""

    config: Config
    size: tuple[int, int]
    batch: int
    objects: int = OBJECTS
    classes: int = NUM_CLASSES


@dataclass(frozen=True)
class Quantity:
    """What is changed: the values that it takes, given the base, and the base with one of them."""

    label: str
    values: Callable[[Setting], Sequence[int]]
    changed: Callable[[Setting, int], Setting]


def _multiples(*factors: float) -> Callable[[int], list[int]]:
    return lambda value: [round(value * factor) for factor in factors]


def _wider(base: Setting, pixels: int) -> Setting:
    """Images of so many pixels and the base's proportions."""
    factor = math.sqrt(pixels / math.prod(base.size))
    return replace(base, size=(round(base.size[0] * factor), round(base.size[1] * factor)))


def _with_proposals(base: Setting, count: int) -> Setting:
    """So many proposals an image in training, prediction, and before NMS."""
    numbers = {name: count for name in ("pre_nms_train", "pre_nms_test", "proposals_train", "proposals_test")}
    rpn = replace(base.config.model.rpn, **numbers)
    return replace(base, config=replace(base.config, model=replace(base.config.model, rpn=rpn)))


def _deeper(base: Setting, depth: int) -> Setting:
    model = base.config.model
    backbone = replace(model.backbone, name=f"resnet{depth}", weights=None)
    return replace(base, config=replace(base.config, model=replace(model, backbone=backbone)))


QUANTITIES: dict[str, Quantity] = {
    "pixels": Quantity("pixels of an image", lambda base: _multiples(0.25, 0.5, 1, 2, 4)(math.prod(base.size)), _wider),
    "batch": Quantity(
        "images a batch",
        lambda base: _multiples(1, 2, 3, 4)(base.batch),
        lambda base, value: replace(base, batch=value),
    ),
    "objects": Quantity(
        "objects an image", lambda base: (1, 8, 32, 128), lambda base, value: replace(base, objects=value)
    ),
    "proposals": Quantity(
        "proposals an image",
        lambda base: _multiples(0.25, 0.5, 1, 2)(base.config.model.rpn.proposals_train),
        _with_proposals,
    ),
    "classes": Quantity("classes", lambda base: (20, 80, 365, 1203), lambda base, value: replace(base, classes=value)),
    "depth": Quantity("layers of the ResNet", lambda base: (18, 34, 50, 101), _deeper),
}


def growth(base: Setting, *, rounds: int, quantities: Mapping[str, Quantity] = QUANTITIES) -> dict[str, Any]:
    """A row of measurements for each value of each quantity, and what the machine reaches in a matrix product.

    Of a row: `quantity`, `value`; the medians over the rounds of `train_seconds` and `predict_seconds`; `train_mib`,
    the most memory that a training step takes itself; `train_gflop`, its products and convolutions; and `share`, of the
    machine's limit, that these reach.
    """
    device = choose_device(base.config.train.device, World())
    dtype = half_precision(base.config.train, device) or torch.float32
    limit = machine_limit(device, dtype)
    rows = [
        {"quantity": name, "value": value, **measured(quantity.changed(base, value), rounds=rounds, limit=limit)}
        for name, quantity in quantities.items()
        for value in quantity.values(base)
    ]
    return {
        "batch": base.batch,
        "height": base.size[0],
        "width": base.size[1],
        "rounds": rounds,
        "limit_gflops": limit / GIGA,
        "limit_of": str(dtype).removeprefix("torch."),
        "conditions": conditions(base.config, device),
        "rows": rows,
    }


def measured(setting: Setting, *, rounds: int, limit: float) -> dict[str, float]:
    """The figures of one setting."""
    contest = Contest(setting.config, size=setting.size, against=None, num_classes=setting.classes)
    runs = {name: contestants[0] for name, contestants in contest.of(setting.batch, objects=setting.objects).items()}
    seconds = {name: statistics.median(alternate([each], rounds, contest.device)[0]) for name, each in runs.items()}
    function, inputs = runs["train"]
    step = partial(function, *inputs)
    flop = operations(step)
    return {
        "train_seconds": seconds["train"],
        "predict_seconds": seconds["predict"],
        "train_mib": peak_memory(step, contest.device) / MIB,
        "train_gflop": flop / GIGA,
        "share": flop / seconds["train"] / limit,
    }


def operations(run: Callable[[], object]) -> int:
    """Floating point operations of the matrix products and convolutions of a run."""
    with FlopCounterMode(display=False) as counter:
        _ = run()
    return counter.get_total_flops()


def machine_limit(device: torch.device, dtype: torch.dtype) -> float:
    """Floating point operations a second of a product of large matrices: the best of a few."""
    left = torch.randn(SIDE, SIDE, device=device, dtype=dtype)
    seconds = alternate([(torch.mm, (left, left))], PRODUCTS, device)[0]
    return 2 * SIDE**3 / min(seconds)


def exponent(rows: Sequence[Mapping[str, float]], name: str) -> float:
    """The power of the value as which a figure grows from the first row to the last: 1 is in proportion, 0 not at
    all.
    """
    first, last = rows[0], rows[-1]
    return math.log(last[name] / first[name]) / math.log(last["value"] / first["value"])
