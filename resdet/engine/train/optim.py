"""The optimizer's parameter groups and the learning rate as a pure function of the step."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resdet.config import Config, OptimConfig, TrainConfig, checked
from resdet.engine.distributed import whole
from resdet.engine.train.optimizers import check_optimizer, made_optimizer
from resdet.engine.train.schedules import SCHEDULES, WITHOUT_WARMUP
from resdet.models.backbones import Backbone

NORMALIZATION = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)


def peak_learning_rate(optim: OptimConfig, train: TrainConfig) -> float:
    """`optim.lr` in proportion to the images a step (the linear scaling rule of Goyal et al., arXiv 1706.02677)."""
    return optim.lr * train.batch_size / optim.reference_batch


def learning_rate(step: int, optim: OptimConfig, train: TrainConfig) -> float:
    """The learning rate of update number `step`, counted from 0.

    A linear warm-up from `warmup_factor` to 1 multiplies the schedule (a row of SCHEDULES), unless that has its own.
    """
    warmup = 1.0
    if step < optim.warmup_steps and optim.schedule not in WITHOUT_WARMUP:
        warmup = optim.warmup_factor + (1 - optim.warmup_factor) * step / optim.warmup_steps
    decay = SCHEDULES[optim.schedule](step, train.steps, optim)
    return peak_learning_rate(optim, train) * warmup * decay


def rate_warnings(old: Config, new: Config, step: int) -> list[str]:
    """A line if the learning rate of update number `step` is another than it was by the config before a resume.

    Milestones are fractions of all steps, so that a longer run moves them.
    """
    before, now = (learning_rate(step, config.optim, config.train) for config in (old, new))
    if math.isclose(before, now, rel_tol=1e-6):
        return []
    return [
        f"the learning rate of step {step + 1} was {before:.6g} with train.steps={old.train.steps} and is now"
        f" {now:.6g}, because optim.schedule={new.optim.schedule} extends over all steps"
    ]


def build_optimizer(model: nn.Module, optim: OptimConfig) -> torch.optim.Optimizer:
    """The optimizer over the trainable parameters; normalization layers have their own weight decay.

    A group's `lr_scale` is its factor on the learning rate: the value of `backbone_scales`, or 1 outside the backbone.
    Raises UserError for an optimizer or an argument that does not exist or does not fit.
    """
    optim = checked(optim)
    check_optimizer(optim)
    of_norms = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, NORMALIZATION) or _is_timm_norm(module)
        for parameter in module.parameters(recurse=False)
    }
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    scales = backbone_scales(model, optim)
    members: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for parameter in trainable:
        members.setdefault((id(parameter) in of_norms, scales.get(id(parameter), 1.0)), []).append(parameter)
    groups = [
        {
            "params": parameters,
            "weight_decay": optim.norm_weight_decay if is_norm else optim.weight_decay,
            "lr_scale": scale,
        }
        for (is_norm, scale), parameters in sorted(members.items(), key=lambda member: member[0])
    ]
    return made_optimizer(groups, optim)


def backbone_scales(model: nn.Module, optim: OptimConfig) -> dict[int, float]:
    """The factor on the learning rate of each of the backbone's parameters, by the parameter's id().

    The last stage has `backbone_lr`, and each stage before it `layer_decay` times the factor of the stage after it
    (discriminative fine-tuning, Howard & Ruder 2018, section 3.2, with a stage in place of a layer).
    """
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, Backbone):
        return {}
    return {
        id(parameter): optim.backbone_lr * optim.layer_decay**depth
        for depth, (_, stage) in enumerate(reversed(backbone.stages()))
        for parameter in stage.parameters()
    }


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Sets the learning rate of each parameter group to `value` times its `lr_scale` (default 1)."""
    for group in optimizer.param_groups:
        group["lr"] = value * group.get("lr_scale", 1.0)


def learning_rate_scales(optimizer: torch.optim.Optimizer) -> tuple[float, float]:
    """The smallest and the largest `lr_scale`."""
    scales = [group.get("lr_scale", 1.0) for group in optimizer.param_groups]
    return min(scales), max(scales)


def clip_gradients(model: nn.Module, limit: float | None) -> Float[Tensor, ""]:
    """Scales all gradients together so that their L2 norm is at most `limit`; returns the norm before.

    Neither waits for the device.
    """
    if limit is not None:
        return whole(nn.utils.clip_grad_norm_(model.parameters(), limit))
    return whole(nn.utils.get_total_norm([each.grad for each in model.parameters() if each.grad is not None]))


def _is_timm_norm(module: nn.Module) -> bool:
    """Whether it is timm's own normalization layer (LayerNorm2d, RmsNorm, ...); not all of them derive from torch's."""
    return type(module).__module__.startswith("timm.layers") and "norm" in type(module).__name__.lower()
