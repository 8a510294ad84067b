"""Normalization layers by name, and a convolution with its norm in one pass over memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # the common base of BatchNorm2d and SyncBatchNorm


class FrozenBatchNorm2d(nn.Module):
    """Batch normalization whose statistics and affine map are constants: a linear scale and offset (He et al. 2015).

    All four are buffers under BatchNorm2d's names, so it reads BatchNorm2d's state dict; training mode does not change
    them.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        _ = self.register_load_state_dict_pre_hook(_drop_batch_count)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps}"


def _drop_batch_count(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """BatchNorm2d also counts its updates; a frozen norm has no updates, so the counter is dropped."""
    _ = state_dict.pop(prefix + "num_batches_tracked", None)


def group_norm(channels: int) -> nn.GroupNorm:
    """32 groups (Wu & He 2018), or the largest smaller power of two that leaves two channels or more in each."""
    return nn.GroupNorm(max(1, math.gcd(64, channels) // 2), channels)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "frozen_bn": FrozenBatchNorm2d,
    "bn": nn.BatchNorm2d,
    "sync_bn": nn.SyncBatchNorm,
    "gn": group_norm,
    "none": lambda channels: nn.Identity(),  # without a norm the convolution has a bias
}


def conv_norm(x: Float[Tensor, "N _ _ _"], conv: nn.Conv2d, norm: nn.Module) -> Float[Tensor, "N _ _ _"]:
    """norm(conv(x)).

    A norm with constant statistics is a scale and an offset. Folded into the weight and the bias, it needs no pass over
    the activations, forward or backward, and the gradients are exact. The product is computed in the parameters'
    precision; autocast rounds it afterwards. Layers with a hook run separately.
    """
    if not _is_constant(norm) or _is_observed(conv) or _is_observed(norm):
        return norm(conv(x))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    offset = norm.bias - norm.running_mean * scale
    if conv.bias is not None:
        offset = offset + conv.bias * scale
    return conv._conv_forward(x, conv.weight * scale[:, None, None, None], offset)


def _is_constant(norm: nn.Module) -> TypeGuard[FrozenBatchNorm2d | _BatchNorm]:
    return isinstance(norm, FrozenBatchNorm2d) or (isinstance(norm, _BatchNorm) and not norm.training)


def _is_observed(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


def freeze_norms(root: nn.Module, *, within: nn.Module, frozen: Callable[[nn.Module], nn.Module] | None = None) -> None:
    """Replaces each batch norm of `root` that lies in `within` by the result of `frozen`, a FrozenBatchNorm2d."""
    inside = set(within.modules())
    for parent in list(root.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm) and child in inside:
                setattr(parent, name, frozen(child) if frozen else frozen_batch_norm(child))


def frozen_batch_norm(norm: _BatchNorm) -> FrozenBatchNorm2d:
    """A frozen norm with the same numbers."""
    frozen = FrozenBatchNorm2d(norm.num_features, norm.eps).to(norm.weight.device, norm.weight.dtype)
    _ = frozen.load_state_dict(norm.state_dict())
    return frozen
