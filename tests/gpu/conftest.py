"""The device of these tests: a GPU, or what the environment names instead."""

import os

import pytest
import torch

from resdet.analysis.gpu.checks import DEVICE


@pytest.fixture(scope="session")
def device() -> torch.device:
    """With RESDET_GPU_TESTS_DEVICE=cpu and TRITON_INTERPRET=1 the same tests run on any machine."""
    name = os.environ.get(DEVICE, "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device(name)
