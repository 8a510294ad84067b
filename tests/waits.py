"""Sees what would wait for a GPU, on any machine: with tensors that have a shape and a device but no values."""

from __future__ import annotations

import traceback
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ASKING = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.bincount", "aten.unique")


class Waits(TorchDispatchMode):
    """Collects the operators that a GPU would be waited for. Those whose names contain `left_out`, which torch has for
    real tensors alone and which return nothing, are not run.
    """

    def __init__(self, *, left_out: str | None = None) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.left_out = left_out

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self.left_out is not None and self.left_out in str(func):
            return None
        result = func(*args, **(kwargs or {}))
        before, after = devices((args, kwargs)), devices(result)
        by_mask = str(func).startswith("aten.index") and any(leaf.dtype == torch.bool for leaf in tensors(args[1]))
        if by_mask or str(func).startswith(ASKING) or (before and after and before != after):
            self.seen.append(f"{func} in {place()}")
        return result


def tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def devices(values: Any) -> set[str]:
    return {tensor.device.type for tensor in tensors(values)}


def place() -> str:
    """The line of the package that called the operator."""
    lines = [frame for frame in traceback.extract_stack() if "/resdet/" in frame.filename]
    return f"{lines[-1].filename}:{lines[-1].lineno}" if lines else "torch"
