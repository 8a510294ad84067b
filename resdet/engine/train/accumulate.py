"""Gradient accumulation: the images of an update are computed in parts, one after another, which takes less memory.

The loss of the whole batch is a sum over all entries divided by their number, which is known only when every part was
computed. So each part is computed twice: once without gradients for the numbers, once for the gradients. The sum of the
parts' gradients is then the gradient of the whole batch, up to rounding. Batch norms see the images of one part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields, replace
from functools import partial
from typing import TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Int64
from torch import Tensor, nn

from resdet.engine.distributed import World, batch_norms
from resdet.engine.task.interface import Model
from resdet.engine.train.alternating import OnProposals
from resdet.engine.train.step import Losses
from resdet.structures import Batch, Proposals, Targets

Part = TypeVar("Part", Targets, Proposals)


def forwards_of(
    losses_of: nn.Module, model: Model, batch: Batch, parts: int, *, precision: torch.autocast, world: World
) -> list[Callable[[], Losses]]:
    """One function for each part of this process's images; the sum of their losses is the loss of the whole batch.

    `parts` divides the number of images. `losses_of` is what `losses_module` made of `model`.
    """
    if parts == 1:
        return [partial(losses_of, batch)]
    if isinstance(losses_of, OnProposals):
        with precision:
            batch = losses_of.with_proposals(batch)
        losses_of = losses_of.losses_of
    shares = split(batch, parts)
    with precision:
        counts = whole_counts(model, shares, world)
    return [partial(losses_of, share, counts) for share in shares]


def unsynced(losses_of: nn.Module) -> Callable[[], AbstractContextManager[None]]:
    """A context in which gradients are not yet averaged over the processes, for all parts but the last."""
    inner = losses_of.losses_of if isinstance(losses_of, OnProposals) else losses_of
    inner = getattr(inner, "_orig_mod", inner)  # torch.compile's wrapper
    return inner.no_sync if isinstance(inner, nn.parallel.DistributedDataParallel) else nullcontext


def split(batch: Batch, parts: int) -> list[Batch]:
    """Contiguous images in equal numbers."""
    size = len(batch.images) // parts
    return [
        Batch(
            batch.images[rows],
            batch.sizes[rows],
            None if batch.targets is None else _rows(batch.targets, rows),
            None if batch.proposals is None else _rows(batch.proposals, rows),
        )
        for rows in (slice(start, start + size) for start in range(0, size * parts, size))
    ]


@torch.no_grad()
def whole_counts(model: Model, parts: Sequence[Batch], world: World) -> Int64[Tensor, " L"]:
    """The number of entries of each loss, over all parts and processes. The model and the generators do not change."""
    with leaving_no_trace(model, parts[0].images.device):
        found = [torch.stack([loss.count for loss in model.mean_losses(part).values()]) for part in parts]
    counts = torch.stack(found).sum(0)
    if world.size > 1:
        dist.all_reduce(counts)
    return counts


@contextmanager
def leaving_no_trace(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Running statistics are not updated, and what is computed afterwards has the same draws of dropout."""
    norms = [norm for norm in batch_norms(model) if norm.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def _rows(part: Part, rows: slice) -> Part:
    values = {field.name: getattr(part, field.name) for field in fields(part)}
    return replace(part, **{name: value[rows] for name, value in values.items() if value is not None})
