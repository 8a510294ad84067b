"""Examines a step whose loss or gradient is not finite: where it began, and the likely causes in their order.

The examination runs the kept batch once more with the weights before the update, which did not change. Each process
examines its own share; nothing is exchanged, and neither weights, statistics, gradients nor generators change.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from resdet.data.batches.collate import ImageInfo
from resdet.engine.task.interface import Model
from resdet.engine.train.accumulate import leaving_no_trace, split
from resdet.structures import Batch
from resdet.text import first_few

GROWN = 3.0  # times the median of the steps before: a loss or a gradient that is running away
TINY = 1e-12
LARGE = 1e4  # of a weight: those of a trained net are below 10
HALF = "train.amp"


@dataclass(frozen=True)
class Past:
    """An earlier step, all of whose values are finite, and the images that a process had in it."""

    step: int
    loss: float
    grad_norm: float
    image_ids: tuple[int, ...]


@dataclass(frozen=True)
class Findings:
    """What the examination of one process's share found; names are those of `model.named_modules()`."""

    module: str | None = None  # the first whose output is not finite
    losses: dict[str, float] = field(default_factory=dict)
    bad_weights: list[str] = field(default_factory=list)  # parameters and statistics that are not finite
    largest_weight: float = 0.0
    bad_inputs: list[str] = field(default_factory=list)  # a line for each image or box
    bad_images: list[int] = field(default_factory=list)  # ids of images whose losses alone are not finite
    images: int = 0
    gradients: dict[str, float] = field(default_factory=dict)  # the norm by stage
    bad_gradient: str | None = None  # the parameter nearest to the losses whose gradient is not finite
    half: bool = False  # products are in half precision, and all is finite in float32

    def to_json(self) -> dict[str, Any]:
        return {name: _plain(value) for name, value in asdict(self).items()}


def examine(model: Model, batch: Batch, images: Sequence[ImageInfo], precision: torch.autocast) -> Findings:
    """Runs the batch again: as it was, each image alone, and in float32 if products were in half precision."""
    exact = torch.autocast(batch.images.device.type, enabled=False)
    with leaving_no_trace(model, batch.images.device):
        with precision, _first_bad_output(model) as first, torch.no_grad():
            losses = {name: loss.item() for name, loss in model(batch).items()}
        finite = all(map(math.isfinite, losses.values()))
        gradients, bad_gradient = _gradients(model, batch, precision)
        alone = [] if len(images) == 1 else _bad_alone(model, batch, images, precision)
        half = precision._enabled and not _is_bad(model, batch, exact)
    weights, largest = _bad_weights(model)
    return Findings(
        module=None if finite and not first else (first[0] if first else "the losses"),
        losses=losses,
        bad_weights=weights,
        largest_weight=largest,
        bad_inputs=bad_inputs(batch, images),
        bad_images=alone,
        images=len(images),
        gradients=gradients,
        bad_gradient=bad_gradient,
        half=half,
    )


def causes_of(found: Findings, recent: Sequence[Past], *, updates: int) -> list[str]:
    """The likely causes, the most likely one first, each with its remedy.

    `recent` are the last steps, the oldest first; `updates` is the number of updates of this process.
    """
    causes: list[str] = []
    if found.bad_inputs:
        causes.append(f"the data: {first_few(found.bad_inputs, 3, separator='; ')}; correct it, or leave the image out")
    if found.bad_weights and not updates:
        causes.append(f"the weights that were loaded: {first_few(found.bad_weights, 3)} not finite; load others")
    elif found.bad_weights:
        causes.append(f"an update before this one wrote {first_few(found.bad_weights, 3)}, which is not finite")
    if found.half:
        causes.append(f"half precision: in float32 all is finite; set {HALF}=off (or {HALF}=bf16 in place of fp16)")
    if running_away := _running_away(recent):
        causes.append(f"the learning rate: {running_away}; lower optim.lr or lengthen optim.warmup_steps")
    elif found.largest_weight > LARGE:
        causes.append(
            f"the learning rate: a weight has grown to {found.largest_weight:.3g}; lower optim.lr or lengthen"
            " optim.warmup_steps"
        )
    if 0 < len(found.bad_images) < found.images and not found.bad_inputs:
        causes.append(f"something in image ids {first_few(found.bad_images)}, which alone are enough; look at them")
    if not causes:
        causes.append("no sign of another cause: lower optim.lr, lengthen optim.warmup_steps or lower train.grad_clip")
    return causes


def bad_inputs(batch: Batch, images: Sequence[ImageInfo]) -> list[str]:
    """A line for each image with pixels, and each box with numbers, that no model can learn from."""
    lines: list[str] = []
    targets = batch.targets
    for row, image in enumerate(images):
        who = f"image id {image.image_id} ({image.file_name})"
        if not batch.images[row].float().isfinite().all():
            lines.append(f"{who} has pixels that are not finite")
        if targets is None:
            continue
        boxes = targets.boxes[row][targets.valid[row]]
        for number in (~boxes.isfinite().all(-1)).nonzero().flatten().tolist():
            lines.append(f"{who}: box {number} is {boxes[number].tolist()}")
    return lines


def stage_of(name: str) -> str:
    """The stage of a parameter: the first two parts of its name, such as `backbone.layer1` or `rpn.head`."""
    return ".".join(name.split(".")[:2] if name.count(".") > 1 else name.split(".")[:1])


@contextmanager
def _first_bad_output(model: nn.Module) -> Iterator[list[str]]:
    """The names of the modules whose output is not finite, in the order in which they finish: the innermost first."""
    found: list[str] = []

    def look(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if not all(tensor.isfinite().all() for tensor in _tensors(output)):
            found.append(name)

    handles = [module.register_forward_hook(partial(look, name)) for name, module in model.named_modules() if name]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, list | tuple):
        for each in output:
            yield from _tensors(each)
    elif isinstance(output, Mapping):
        yield from _tensors(list(output.values()))
    elif hasattr(output, "__dict__"):  # a dataclass of tensors
        yield from _tensors(list(vars(output).values()))


def _gradients(model: Model, batch: Batch, precision: torch.autocast) -> tuple[dict[str, float], str | None]:
    """The norm of the gradient by stage, of the losses that are finite; and the name of the last parameter, the one
    nearest to the losses, whose gradient is not finite.
    """
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    with precision:
        losses = [loss for loss in model(batch).values() if loss.isfinite()]
    if not losses:
        return {}, None
    gradients = torch.autograd.grad(torch.stack(losses).sum(), list(named.values()), allow_unused=True)
    squares: dict[str, float] = {}
    bad = None
    for name, gradient in zip(named, gradients, strict=True):
        if gradient is None:
            continue
        square = gradient.double().square().sum().item()
        squares[stage_of(name)] = squares.get(stage_of(name), 0.0) + square
        bad = name if not math.isfinite(square) else bad
    return {stage: math.sqrt(square) for stage, square in squares.items()}, bad


def _bad_alone(model: Model, batch: Batch, images: Sequence[ImageInfo], precision: torch.autocast) -> list[int]:
    """Ids of images whose losses or gradients, without the other images, are not finite."""
    mode = model.training
    _ = model.eval()  # the statistics of a single image mean nothing
    try:
        parts = zip(split(batch, len(images)), images, strict=True)
        return [image.image_id for part, image in parts if _is_bad(model, part, precision)]
    finally:
        _ = model.train(mode)


def _is_bad(model: Model, batch: Batch, precision: torch.autocast) -> bool:
    with precision:
        total = torch.stack(list(model(batch).values())).sum()
    if not total.isfinite():
        return True
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(total, wanted, allow_unused=True)
    return not all(gradient.isfinite().all() for gradient in gradients if gradient is not None)


def _bad_weights(model: nn.Module) -> tuple[list[str], float]:
    """The names of parameters and buffers that are not finite, and the largest absolute value of a parameter."""
    bad = [name for name, tensor in model.state_dict().items() if not tensor.isfinite().all()]
    sizes = [parameter.detach().abs().max().item() for parameter in model.parameters() if parameter.numel()]
    return bad, max((size for size in sizes if math.isfinite(size)), default=0.0)


def _running_away(recent: Sequence[Past]) -> str | None:
    """What grew in the last steps, in words, with the images of the step where it had become largest."""
    for words, values in (
        ("the loss", [past.loss for past in recent]),
        ("the norm of the gradient", [past.grad_norm for past in recent]),
    ):
        if len(values) < 2 or values[-1] <= GROWN * median(values[:-1]):
            continue
        jump = max(range(1, len(values)), key=lambda i: values[i] / max(values[i - 1], TINY))
        return (
            f"{words} grew from {median(values[:jump]):.3g} to {values[-1]:.3g}, and most in step {recent[jump].step}"
            f" (image ids {first_few(recent[jump].image_ids)}: look at their boxes)"
        )
    return None


def _plain(value: Any) -> Any:
    """A value for JSON, which has no numbers that are not finite."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
