"""torch.compile around models: for a training by `train.compile`, for a saved model by `test.compile`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed
from torch._dynamo.utils import counters

from resdet.config import TestConfig
from resdet.engine.machine import check_compiler
from resdet.errors import UserError
from resdet.text import said_by


@contextmanager
def whole_cache() -> Iterator[None]:
    """Converts torch's error for a library in its cache that cannot be loaded, as a compilation that was killed leaves
    one, into a UserError that names the cache.
    """
    try:
        yield
    except BackendCompilerFailed as error:
        if not isinstance(error.inner_exception, (ImportError, OSError)):
            raise
        from torch._inductor.runtime.cache_dir_utils import cache_dir

        raise UserError(
            f"torch.compile cannot load what is in its cache ({said_by(error.inner_exception)}), as after a compilation"
            f" that was killed; delete {cache_dir()} and start again"
        ) from error


def compiled(model: nn.Module, test: TestConfig) -> nn.Module:
    """A model for prediction whose `predict` is compiled at its first call, with its weights as constants, if
    `test.compile` says so.

    Raises UserError without a compiler.
    """
    if test.compile:
        check_compiler("test.compile")
        predict = torch.compile(model.predict, options={"freezing": True})  # pyright: ignore[reportCallIssue, reportArgumentType]
        model.predict = whole_cache()(predict)  # pyright: ignore[reportAttributeAccessIssue]
    return model


def compiled_graphs() -> int:
    """How many graphs torch has compiled in this process; each new shape may add one."""
    return counters["stats"]["unique_graphs"]
