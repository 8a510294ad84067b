"""Training with operators that always give the same bits (`train.deterministic`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from resdet.errors import UserError

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"  # without it, products on a GPU are refused


@contextmanager
def deterministic(*, wanted: bool) -> Iterator[None]:
    """Inside the block, operators without a deterministic form are refused, if that is `wanted`.

    Raises UserError that names such an operator. The settings of torch are restored at the end.
    """
    if not wanted:
        yield
        return
    before, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    _ = os.environ.setdefault(CUBLAS, ":4096:8")
    torch.use_deterministic_algorithms(mode=True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        operator = str(error).split()[0]
        raise UserError(
            f"train.deterministic=true: {operator} has no deterministic form on this device; set it to false"
        ) from None
    finally:
        torch.use_deterministic_algorithms(mode=before)
        torch.backends.cudnn.benchmark = benchmark
