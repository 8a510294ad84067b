"""Activation checkpointing (Chen et al. 2016): a block keeps its input alone and is computed once more in the backward
pass. The losses and gradients are the same; the memory of the activations falls and the time rises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from resdet.config import Config
from resdet.errors import UserError

FEWEST_LAYERS = 2  # with weights, in a block


def recompute_blocks(model: nn.Module, config: Config) -> None:
    """Every block of the backbone is computed again in the backward pass, if `train.recompute` is set.

    Raises UserError for a backbone without blocks, and with train.compile, which decides for itself what it keeps.
    """
    if not config.train.recompute:
        return
    if config.train.compile:
        raise UserError("train.recompute=true with train.compile=true: one of them can be set; leave one out")
    blocks = blocks_of(getattr(model, "backbone", model))
    if not blocks:
        raise UserError(
            f"train.recompute=true: model.backbone.name={config.model.backbone.name} has no blocks of several layers"
            " that could be computed again; set train.recompute=false"
        )
    for block in blocks:
        block.forward = partial(_recomputed, block, block.forward)


def blocks_of(backbone: nn.Module) -> list[nn.Module]:
    """The outermost children of nn.Sequential that have several layers with weights, such as residual blocks."""
    blocks: list[nn.Module] = []
    inside: set[int] = set()
    for module in backbone.modules():
        if id(module) in inside or not isinstance(module, nn.Sequential):
            continue
        for child in module:
            if not isinstance(child, nn.Sequential) and _layers(child) >= FEWEST_LAYERS:
                blocks.append(child)
                inside.update(map(id, child.modules()))
    return blocks


def _layers(module: nn.Module) -> int:
    return sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in module.modules())


def _recomputed(block: nn.Module, forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_kept(block)

    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **named)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Batch norms use the statistics of their batch, and leave the running ones as the first pass made them."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, seen) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, seen
