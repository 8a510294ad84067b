"""Measures the time of a training step and of a prediction, and compares it with a peer in the same process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from resdet.analysis.benchmark.peers import TorchvisionPeer
from resdet.config import Config
from resdet.data.batches.collate import padded_shape, size_divisor
from resdet.engine.distributed import World, autocast, choose_device, to_device, trainable
from resdet.engine.train.step import training_step
from resdet.models.build.conventions import completed
from resdet.models.build.detector import build_model
from resdet.structures import Batch, Targets

OBJECTS = 8  # per image
NUM_CLASSES = 80
LEARNING_RATE = 1e-6  # so small that many steps on one batch do not change the time of a step

Contestant = tuple[Callable[..., None], tuple[Any, ...]]


def benchmark(
    config: Config, *, size: tuple[int, int], batch_size: int, against: str | None, pairs: int
) -> dict[str, float | int]:
    """Median seconds of ours and of the peer, and the median of the paired ratios (peer over ours: above 1 is faster).

    Both run alternately on the same random images, so that other load on the machine affects both equally.

    Args:
        size: height and width of the images in pixels.
        against: "torchvision", or None to measure only our detector.
        pairs: the number of runs of each, after one warm-up run.
    """
    train = config.train
    device = choose_device(train.device, World())
    _ = torch.manual_seed(train.seed)
    mask_resolution = config.data.mask_resolution if config.model.mask_head else None
    padded = padded_shape([size], size_divisor(config.model))
    batch = to_device(random_batch(size, padded, batch_size, mask_resolution=mask_resolution), train, device)
    # Weights are not loaded: the values of the weights do not change the time.
    without = replace(config.model, weights=None, backbone=replace(config.model.backbone, weights=None))
    without, _ = completed(without, None, "the config")
    model = build_model(without, NUM_CLASSES).to(device)
    if train.channels_last:
        model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # a missing overload
    precision = autocast(train, device)
    predict = torch.compile(model.predict) if train.compile else model.predict
    ours: list[Contestant] = [
        (_training_step(model, trainable(model, train, World()), precision), (batch,)),
        (_prediction(model, predict, precision), (batch,)),
    ]
    peers: list[Contestant] = []
    if against is not None:
        peer = TorchvisionPeer(without, NUM_CLASSES, size).to(device)
        images, targets = peer.inputs(batch)
        peers = [
            (_training_step(peer, peer, precision), (images, targets)),
            (_prediction(peer, peer.predict, precision), (images,)),
        ]

    results: dict[str, float | int] = {"batch": batch_size, "height": size[0], "width": size[1], "pairs": pairs}
    for index, name in enumerate(("train", "predict")):
        contestants = [ours[index], *peers[index : index + 1]]
        seconds = alternate(contestants, pairs, device)
        results[f"{name}/seconds"] = statistics.median(seconds[0])
        results[f"{name}/images_per_second"] = batch_size / results[f"{name}/seconds"]
        if peers:
            results[f"{name}/peer_seconds"] = statistics.median(seconds[1])
            results[f"{name}/ratio"] = statistics.median(b / a for a, b in zip(*seconds, strict=True))
    return results


def random_batch(
    size: tuple[int, int], padded: tuple[int, int], batch_size: int, *, mask_resolution: int | None = None
) -> Batch:
    """A batch of `padded` size with noise images and a few boxes, which have filled masks if `mask_resolution` is
    given.
    """
    height, width = size
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(batch_size, OBJECTS, 2, generator=generator) * 0.6
    corners = torch.cat([corner, corner + 0.05 + 0.3 * torch.rand(corner.shape, generator=generator)], dim=-1)
    valid = torch.ones(batch_size, OBJECTS, dtype=torch.bool)
    masks = None
    if mask_resolution is not None:
        masks = torch.full((batch_size, OBJECTS, mask_resolution, mask_resolution), 255, dtype=torch.uint8)
    return Batch(
        images=torch.randint(0, 256, (batch_size, 3, *padded), dtype=torch.uint8, generator=generator),
        sizes=torch.tensor([size]).expand(batch_size, 2).contiguous(),
        targets=Targets(
            boxes=corners * torch.tensor([width, height, width, height]),
            labels=torch.randint(0, NUM_CLASSES, valid.shape, generator=generator),
            crowd=~valid,
            valid=valid,
            seeds=torch.arange(batch_size),
            masks=masks,
        ),
    )


def _training_step(
    model: nn.Module, forward: Callable[..., dict[str, Tensor]], autocast: torch.autocast
) -> Callable[..., None]:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE, momentum=0.9)

    def step(*inputs: Any) -> None:
        model.train()
        _ = training_step(
            partial(forward, *inputs), model, optimizer, lr=LEARNING_RATE, grad_clip=None, precision=autocast
        )

    return step


def _prediction(model: nn.Module, predict: Callable[..., Any], autocast: torch.autocast) -> Callable[..., None]:
    def run(*inputs: Any) -> None:
        model.eval()
        with torch.no_grad(), autocast:
            predict(*inputs)

    return run


def alternate(contestants: Sequence[Contestant], rounds: int, device: torch.device) -> list[list[float]]:
    """The seconds of each contestant in each round; they run alternately, so that other load on the machine affects all
    equally.
    """
    seconds: list[list[float]] = [[] for _ in contestants]
    for turn in range(rounds + 1):
        for times, (function, inputs) in zip(seconds, contestants, strict=True):
            _synchronize(device)
            start = time.perf_counter()
            function(*inputs)
            _synchronize(device)
            if turn:  # the first round is the warm-up
                times.append(time.perf_counter() - start)
    return seconds


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
