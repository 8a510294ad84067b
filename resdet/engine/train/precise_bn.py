"""Precise batch normalization: statistics computed with the final weights over many training batches.

The running averages of training were computed while the weights still changed, and mainly from the last few batches. He
et al. 2015 (appendix A) compute the statistics after training and hold them constant when fine-tuning for detection; Wu
& Johnson 2021 (arXiv 2105.07576, section 3) measure the benefit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # the common base of BatchNorm2d and SyncBatchNorm

from resdet.engine.distributed import World, autocast, batch_norms, to_device
from resdet.engine.train.state import Run
from resdet.structures import Batch


@dataclass
class Moments:
    """Sums over all inputs of a layer with C channels; every position of every image counts once."""

    count: float
    total: Float64[Tensor, " C"]
    squares: Float64[Tensor, " C"]

    @classmethod
    def zero(cls, norm: _BatchNorm) -> Moments:
        zeros = torch.zeros(norm.num_features, dtype=torch.float64)
        return cls(0.0, zeros, zeros.clone())

    def add(self, x: Float[Tensor, "N C *_"]) -> None:
        """Adds the mean and variance of one call, computed in float32, so that no large numbers cancel."""
        every_but_channels = [dim for dim in range(x.ndim) if dim != 1]
        variance, mean = torch.var_mean(x.float(), every_but_channels, correction=0)
        mean, variance, count = mean.double().cpu(), variance.double().cpu(), x.numel() // x.shape[1]
        self.count += count
        self.total += count * mean
        self.squares += count * (variance + mean.square())

    def over_all(self, world: World) -> Moments:
        """The sums of all processes together, divided by the number of processes."""
        count, *sums = world.mean([self.count, *self.total.tolist(), *self.squares.tolist()])
        total, squares = torch.tensor(sums, dtype=torch.float64).chunk(2)
        return Moments(count, total, squares)

    def mean_and_variance(self) -> tuple[Float64[Tensor, " C"], Float64[Tensor, " C"]]:
        """By the law of total variance: the mean of the variances and the variance of the means."""
        mean = self.total / self.count
        return mean, (self.squares / self.count - mean.square()).clamp(min=0)


@torch.no_grad()
def recompute_statistics(model: nn.Module, batches: Iterable[Batch], *, expected: int, world: World) -> bool:
    """Replaces the running mean and variance of each batch norm by those of all its inputs over `batches`.

    The model sees each batch as in training, every batch norm with that batch's own statistics, but dropout is off. The
    variance is that of all inputs together (the law of total variance), so it includes the variation between batches.
    Parameters, counters and modes do not change. If there were fewer than `expected` batches, the statistics do not
    change and the result is False.
    """
    norms = batch_norms(model)
    moments = [Moments.zero(norm) for norm in norms]
    seen = 0
    with batch_statistics(model, norms), ExitStack() as hooks:
        for norm, its in zip(norms, moments, strict=True):
            _ = hooks.callback(norm.register_forward_pre_hook(_adding_to(its)).remove)
        for batch in batches:
            _ = model(batch)
            seen += 1
    if seen < expected:
        return False
    for norm, its in zip(norms, moments, strict=True):
        whole = its.over_all(world)
        if whole.count:  # a layer that the forward pass does not use keeps its statistics
            assert norm.running_mean is not None
            assert norm.running_var is not None
            mean, variance = whole.mean_and_variance()
            _ = norm.running_mean.copy_(mean)
            _ = norm.running_var.copy_(variance)
    return True


@contextmanager
def batch_statistics(model: nn.Module, norms: list[_BatchNorm]) -> Iterator[None]:
    """The whole model in evaluation mode, except these layers, which use the statistics of their batch and
    store none.
    """
    mode = model.training
    _ = model.eval()
    for norm in norms:
        norm.train().track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
        _ = model.train(mode)


def _adding_to(moments: Moments) -> Callable[[nn.Module, tuple[Tensor]], None]:
    return lambda _, inputs: moments.add(inputs[0])


def make_precise(model: nn.Module, run: Run) -> bool:
    """Gives the batch norms the statistics over the first `train.precise_bn` batches of the training order.

    Returns whether it did; if a signal arrived in between, the model is not changed.
    """
    config, world, count = run.config, run.world, run.config.train.precise_bn
    batches = run.task.training_batches(run.train_set, config, start_step=0, rank=world.rank, world_size=world.size)

    def share() -> Iterator[Batch]:
        for _ in range(count):
            loaded = run.stop.next(batches)
            if world.any(run.stop.requested) or loaded is None:
                return
            yield to_device(loaded.batch, config.train, run.device)

    with autocast(config.train, run.device):
        if not recompute_statistics(model, share(), expected=count, world=world):
            return False
    images = count * config.train.batch_size
    run.log.say(f"precise BN: statistics of {len(batch_norms(model))} layers over {count} batches ({images} images)")
    return True
