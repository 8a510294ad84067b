"""Training with the weights in shards (`train.parallel=fsdp`): each process keeps its part of every weight, gradient
and optimizer state, and the weights of a block are put together while it is computed (torch's FSDP2, after ZeRO,
Rajbhandari et al. 2020).

A shard is a DTensor. What leaves the training, to be evaluated, examined or saved, is whole: checkpoints are those of
any other run, and go on with or without shards.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from resdet.config import Config
from resdet.engine.distributed import SharedLosses, World
from resdet.engine.task.interface import Model
from resdet.engine.train.alternating import losses_module
from resdet.engine.train.optim import build_optimizer
from resdet.engine.train.optimizers import FUSED
from resdet.engine.train.recompute import blocks_of, recompute_blocks
from resdet.engine.train.state import Run, TrainState
from resdet.errors import UserError


def check_sharding(config: Config) -> None:
    """Raises UserError for keys that do not go with `train.parallel=fsdp`."""
    train = config.train
    if train.parallel != "fsdp":
        return
    others = {
        "train.accumulate": train.accumulate > 1,
        "train.compile": train.compile,
        "train.ema": train.ema is not None,
        "train.precise_bn": train.precise_bn > 0,
        "train.proposals": train.proposals is not None,
        "train.amp=fp16": train.amp == "fp16",
        "optim.fused=true": bool(config.optim.fused),
    }
    if found := [name for name, is_set in others.items() if is_set]:
        raise UserError(f"train.parallel=fsdp does not go with {', '.join(found)}; leave that out, or use ddp")
    if config.optim.name not in FUSED:
        raise UserError(f"train.parallel=fsdp goes with optim.name={', '.join(FUSED)}, not with {config.optim.name}")


def prepared(state: TrainState, run: Run) -> nn.Module:
    """The losses of the model as it is trained. With `train.parallel=fsdp` and several processes the weights and the
    optimizer of `state` become the shards of this process; every process must call this.
    """
    config, world = run.config, run.world
    if config.train.parallel == "ddp" or world.size == 1:
        return losses_module(state.model, config, world, run.device)
    state.gathered = copy.deepcopy(state.model)
    recompute_blocks(state.model, config)
    losses_of = in_shards(state.model, world, run.device)
    state.optimizer = optimizer_in_shards(state.optimizer, state.model, config)
    every = sum(weight.numel() for weight in state.model.parameters())
    run.log.say(
        f"train.parallel=fsdp: this process keeps {own_weights(state.model)} of {every} weights"
        " (as many gradients, and their part of the optimizer)"
    )
    return losses_of


def own_weights(model: nn.Module) -> int:
    """How many weights of a model in shards this process keeps."""
    from torch.distributed.tensor import DTensor

    return sum(weight.to_local().numel() for weight in model.parameters() if isinstance(weight, DTensor))


def in_shards(model: Model, world: World, device: torch.device) -> nn.Module:
    """The losses of a model whose parameters become shards, in place: each block of the backbone by itself, and the
    rest together. Every parameter has a gradient for every batch, even an empty one.
    """
    from torch.distributed.device_mesh import init_device_mesh  # for this alone: they take a while
    from torch.distributed.fsdp import FSDPModule, fully_shard

    mesh = init_device_mesh(device.type, (world.size,))
    for block in blocks_of(model.backbone):
        _ = fully_shard(block, mesh=mesh)
    losses_of = SharedLosses(model.train(), world.size)
    _ = fully_shard(losses_of, mesh=mesh)  # in place, as the blocks
    if device.type == "cpu":
        for module in losses_of.modules():
            if isinstance(module, FSDPModule):
                module.set_force_sum_reduction_for_comms(enable=True)  # gloo has no mean
    return losses_of


def optimizer_in_shards(whole: torch.optim.Optimizer, model: nn.Module, config: Config) -> torch.optim.Optimizer:
    """The optimizer of a model whose weights are now shards, with the shards of the state of the optimizer before."""
    from torch.distributed.tensor import DTensor, distribute_tensor  # for this alone: it takes a while

    optimizer = build_optimizer(model, replace(config.optim, fused=False))  # the fused kernels take no DTensor
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    saved = whole.state_dict()
    state: dict[int, dict[str, Any]] = {}
    for number, values in saved["state"].items():
        weight = parameters[number]
        assert isinstance(weight, DTensor)
        state[number] = {
            name: distribute_tensor(value, weight.device_mesh, weight.placements)
            if isinstance(value, torch.Tensor) and value.shape == weight.shape
            else value
            for name, value in values.items()
        }
    groups = [group | {"fused": None} for group in saved["param_groups"]]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    return optimizer
