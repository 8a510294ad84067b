"""The memory format of a training whose config leaves it open (`train.channels_last: null`), found by timing both.

Which one is quicker depends on the net and on the processor: convolutions with few channels a group are several times
quicker in one on one processor and in the other on another. The answer is written into the run's config, so a resumed
run has the same one.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from resdet.config import Config
from resdet.engine.distributed import World, autocast
from resdet.engine.task.table import task_of
from resdet.models.backbones import Backbone

FORMATS = (torch.channels_last, torch.contiguous_format)
PAIRS = 3  # timed passes in each format, in turns, after one of each that is not counted
MOST_PIXELS = 1_200_000  # of all timed images together: one image of 800 x 1333, or many small ones
CLEARLY = 1.05  # contiguous must be so many times as quick; otherwise a tie could fall differently in two equal runs
SIDES = 32  # the sides of the timed images are multiples of it


def with_memory_format(
    config: Config, backbone: Backbone, device: torch.device, world: World
) -> tuple[Config, list[str]]:
    """The config with `train.channels_last`, and a line about it if it was open. Every process must call this.

    On a GPU it is true, whose matrix units read that format, and with `train.deterministic` too, for a measurement
    can come out differently the next time. The backbone and the random generators stay as they are.
    """
    if config.train.channels_last is not None:
        return config, []
    if device.type != "cpu" or config.train.deterministic:
        return _decided(config, channels_last=True), []
    ratio = world.from_lead(times_as_quick(config, backbone, device) if world.leads else 0.0)
    chosen = _decided(config, channels_last=ratio < CLEARLY)
    return chosen, [
        f"train.channels_last={str(chosen.train.channels_last).lower()}: contiguous images are {ratio:.2f} times as"
        " quick in the backbone on this machine"
    ]


def times_as_quick(config: Config, backbone: Backbone, device: torch.device) -> float:
    """The time of a pass in channels_last over that in contiguous tensors: the median of the paired ratios."""
    images = torch.zeros(timed_shape(config), device=device)
    with torch.random.fork_rng(devices=[]):
        passes = [_passes(config, backbone, images, layout) for layout in FORMATS]
        seconds = [[_seconds(one) for one in passes] for _ in range(1 + PAIRS)]
    return statistics.median(last / contiguous for last, contiguous in seconds[1:])


def timed_shape(config: Config) -> tuple[int, int, int, int]:
    """(N, 3, H, W) of the timed images: those that a process computes at once, of a usual size."""
    height, width = _usual_size(config)
    images = min(config.train.batch_size // config.train.accumulate, max(1, MOST_PIXELS // (height * width)))
    return max(1, images), 3, height, width


def _usual_size(config: Config) -> tuple[int, int]:
    """Of an image of 3 by 4 after its resizing, or of a classifier's crop."""
    augment = config.data.augment
    if not task_of(config).has_detections:
        return _multiple(augment.crop), _multiple(augment.crop)
    long = min(max(augment.short_side) * 4 // 3, augment.max_side)
    return _multiple(long * 3 // 4), _multiple(long)


def _multiple(side: int) -> int:
    return -(-side // SIDES) * SIDES


def _passes(
    config: Config, backbone: Backbone, images: torch.Tensor, layout: torch.memory_format
) -> Callable[[], object]:
    """A forward and a backward pass of a copy of the backbone."""
    copied: nn.Module = copy.deepcopy(backbone).train().to(images.device, memory_format=layout)  # pyright: ignore[reportCallIssue]
    images = images.contiguous(memory_format=layout)
    precision = autocast(config.train, images.device)

    def once() -> None:
        with precision:
            total = torch.stack([level.float().mean() for level in copied(images)]).sum()
        if total.requires_grad:
            total.backward()

    return once


def _seconds(one: Callable[[], object]) -> float:
    start = time.perf_counter()
    _ = one()
    return time.perf_counter() - start


def _decided(config: Config, *, channels_last: bool) -> Config:
    return replace(config, train=replace(config.train, channels_last=channels_last))
