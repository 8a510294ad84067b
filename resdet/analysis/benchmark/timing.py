"""Measures the time of a training step and of a prediction, and compares it with a peer in the same process."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from resdet.analysis.benchmark.guard import conditions
from resdet.analysis.benchmark.peers import TorchvisionPeer
from resdet.config import Config, OptimConfig
from resdet.data.batches.collate import padded_shape, size_divisor
from resdet.engine.distributed import World, autocast, choose_device, memory_format, to_device, trainable
from resdet.engine.machine import check_compiler
from resdet.engine.train.memory_format import with_memory_format
from resdet.engine.train.optim import build_optimizer
from resdet.engine.train.optimizers import has_fused_form
from resdet.engine.train.step import apply_gradients, gradients_of
from resdet.models.build.conventions import completed
from resdet.models.build.detector import build_model
from resdet.structures import Batch, Targets

OBJECTS = 8  # per image
NUM_CLASSES = 80
LEARNING_RATE = 1e-6  # so small that many steps on one batch do not change the time of a step
FORMS = {"plain": False, "fused": True}  # of an optimizer: a kernel for each operation, or one for all weights

Contestant = tuple[Callable[..., None], tuple[Any, ...]]


def benchmark(
    config: Config, *, size: tuple[int, int], batch_size: int, against: str | None, pairs: int
) -> dict[str, Any]:
    """Median seconds of ours and of the peer; the paired ratios (peer over ours: above 1 is faster) and their median;
    and the optimizer's seconds (`optimizer_seconds`).

    Both run alternately on the same random images, so that other load on the machine affects both equally.

    Args:
        size: height and width of the images in pixels.
        against: "torchvision", or None to measure only our detector.
        pairs: the number of runs of each, after one warm-up run.
    """
    contest = Contest(config, size=size, against=against)
    results: dict[str, Any] = {"batch": batch_size, "height": size[0], "width": size[1], "pairs": pairs}
    results["conditions"] = conditions(config, contest.device)
    results["channels_last"] = contest.config.train.channels_last
    for name, contestants in contest.of(batch_size).items():
        seconds = alternate(contestants, pairs, contest.device)
        results[f"{name}/seconds"] = statistics.median(seconds[0])
        results[f"{name}/images_per_second"] = batch_size / results[f"{name}/seconds"]
        if against is not None:
            results[f"{name}/peer_seconds"] = statistics.median(seconds[1])
            results[f"{name}/ratios"] = [theirs / ours for ours, theirs in zip(*seconds, strict=True)]
            results[f"{name}/ratio"] = statistics.median(results[f"{name}/ratios"])
    return results | optimizer_seconds(contest.model, config.optim, rounds=pairs)


class Contest:
    """A detector of resdet, and the peer of the same architecture if `against` is "torchvision", on one device.

    Weights are not loaded: the values of the weights do not change the time.
    """

    def __init__(
        self, config: Config, *, size: tuple[int, int], against: str | None, num_classes: int = NUM_CLASSES
    ) -> None:
        if config.train.compile:
            check_compiler("train.compile")
        self.size, self.num_classes = size, num_classes
        self.device = choose_device(config.train.device, World())
        _ = torch.manual_seed(config.train.seed)
        without = replace(config.model, weights=None, backbone=replace(config.model.backbone, weights=None))
        without, _ = completed(without, None, "the config")
        model = build_model(without, num_classes).to(self.device)
        self.config, _ = with_memory_format(config, model.backbone, self.device, World())
        train = self.config.train
        self.model = model.to(memory_format=memory_format(train))  # pyright: ignore[reportCallIssue]  # a missing overload
        self.losses_of = trainable(self.model, train, World())
        self.predict = (
            torch.compile(self.model.predict, mode=train.compile_mode) if train.compile else self.model.predict
        )
        self.peer = TorchvisionPeer(without, num_classes, size).to(self.device) if against is not None else None

    def batch(self, batch_size: int, objects: int = OBJECTS) -> Batch:
        """A random batch on the device, with so many objects in each image."""
        mask_resolution = self.config.data.mask_resolution if self.config.model.mask_head else None
        padded = padded_shape([self.size], size_divisor(self.config.model))
        batch = random_batch(
            self.size,
            padded,
            batch_size,
            mask_resolution=mask_resolution,
            objects=objects,
            num_classes=self.num_classes,
        )
        return to_device(batch, self.config.train, self.device)

    def of(self, batch_size: int, objects: int = OBJECTS) -> dict[str, list[Contestant]]:
        """Our training step and that of the peer, under "train", and the predictions, under "predict"."""
        batch, precision = self.batch(batch_size, objects), autocast(self.config.train, self.device)
        runs: dict[str, list[Contestant]] = {
            "train": [(_training_step(self.model, self.losses_of, precision), (batch,))],
            "predict": [(_prediction(self.model, self.predict, precision), (batch,))],
        }
        if self.peer is not None:
            images, targets = self.peer.inputs(batch)
            runs["train"].append((_training_step(self.peer, self.peer, precision), (images, targets)))
            runs["predict"].append((_prediction(self.peer, self.peer.predict, precision), (images,)))
        return runs


def random_batch(
    size: tuple[int, int],
    padded: tuple[int, int],
    batch_size: int,
    *,
    mask_resolution: int | None = None,
    objects: int = OBJECTS,
    num_classes: int = NUM_CLASSES,
) -> Batch:
    """A batch of `padded` size with noise images and a few boxes, which have filled masks if `mask_resolution` is
    given.
    """
    height, width = size
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(batch_size, objects, 2, generator=generator) * 0.6
    corners = torch.cat([corner, corner + 0.05 + 0.3 * torch.rand(corner.shape, generator=generator)], dim=-1)
    valid = torch.ones(batch_size, objects, dtype=torch.bool)
    masks = None
    if mask_resolution is not None:
        masks = torch.full((batch_size, objects, mask_resolution, mask_resolution), 255, dtype=torch.uint8)
    return Batch(
        images=torch.randint(0, 256, (batch_size, 3, *padded), dtype=torch.uint8, generator=generator),
        sizes=torch.tensor([size]).expand(batch_size, 2).contiguous(),
        targets=Targets(
            boxes=corners * torch.tensor([width, height, width, height]),
            labels=torch.randint(0, num_classes, valid.shape, generator=generator),
            crowd=~valid,
            valid=valid,
            seeds=torch.arange(batch_size),
            masks=masks,
        ),
    )


def _training_step(
    model: nn.Module, forward: Callable[..., dict[str, Tensor]], autocast: torch.autocast
) -> Callable[..., None]:
    """A step whose result is not read, so that it does not wait for a GPU; `alternate` does."""
    trained = [p for p in model.parameters() if p.requires_grad]
    on_gpu = trained[0].device.type == "cuda"
    optimizer = torch.optim.SGD(trained, lr=LEARNING_RATE, momentum=0.9, fused=True if on_gpu else None)

    def step(*inputs: Any) -> None:
        model.train()
        losses = gradients_of(partial(forward, *inputs), model, autocast)
        _ = apply_gradients(losses, model, optimizer, lr=LEARNING_RATE, grad_clip=None)

    return step


def _prediction(model: nn.Module, predict: Callable[..., Any], autocast: torch.autocast) -> Callable[..., None]:
    def run(*inputs: Any) -> None:
        model.eval()
        with torch.no_grad(), autocast:
            predict(*inputs)

    return run


def alternate(
    contestants: Sequence[Contestant], rounds: int, device: torch.device, *, warmup: int = 1
) -> list[list[float]]:
    """The seconds of each contestant in each round; they run alternately, so that other load on the machine affects all
    equally. The first `warmup` rounds are not counted.
    """
    seconds: list[list[float]] = [[] for _ in contestants]
    for turn in range(rounds + warmup):
        for times, (function, inputs) in zip(seconds, contestants, strict=True):
            synchronize(device)
            start = time.perf_counter()
            function(*inputs)
            synchronize(device)
            if turn >= warmup:
                times.append(time.perf_counter() - start)
    return seconds


def synchronize(device: torch.device) -> None:
    """Waits for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def optimizer_seconds(model: nn.Module, optim: OptimConfig, *, rounds: int) -> dict[str, Any]:
    """The median `optimizer/plain_seconds` and, if the optimizer has that form, `optimizer/fused_seconds`;
    `optimizer/fused_ratio` (the median of plain over fused: above 1, fused is faster), and `optimizer/same_bits`,
    whether both end with the same weights. The gradients are random and the same for both.
    """
    device = next(model.parameters()).device
    contestants: dict[str, Contestant] = {}
    copies: dict[str, nn.Module] = {}
    for name, fused in FORMS.items():
        if not fused or has_fused_form(optim):
            copies[name] = with_gradients(copy.deepcopy(model))
            contestants[name] = (build_optimizer(copies[name], replace(optim, fused=fused)).step, ())
    seconds = dict(zip(contestants, alternate(list(contestants.values()), rounds, device), strict=True))
    results: dict[str, Any] = {f"optimizer/{name}_seconds": statistics.median(times) for name, times in seconds.items()}
    if "fused" in seconds:
        pairs = zip(seconds["plain"], seconds["fused"], strict=True)
        results["optimizer/fused_ratio"] = statistics.median(plain / fused for plain, fused in pairs)
        weights = zip(*(each.parameters() for each in copies.values()), strict=True)
        results["optimizer/same_bits"] = all(torch.equal(one, other) for one, other in weights)
    return results


def with_gradients(model: nn.Module) -> nn.Module:
    """The model with a small random gradient for each parameter that is trained."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = (torch.randn(parameter.shape, generator=generator) * 1e-3).to(parameter)
    return model
