"""What all tests share: a cache of their own, no calls home, one thread."""

import os
import tempfile
from collections.abc import Iterator

import pytest
import torch

CACHE = tempfile.TemporaryDirectory(prefix="resdet-tests-")
_ = os.environ.setdefault("RESDET_CACHE", CACHE.name)
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads of a loaded machine wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
