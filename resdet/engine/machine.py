"""What a machine lacks for what a config asks of it, each as one line with a remedy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from resdet.errors import UserError

DRIVER = Path("/proc/driver/nvidia/version")
COMPILERS = ("g++", "clang++")  # one of them, or what CXX names
GIB = 2**30


def unusable_driver() -> str | None:
    """What is known about the driver of a GPU that torch cannot use: usually it is older than torch's CUDA."""
    if torch.cuda.is_available() or not DRIVER.exists():
        return None
    version = DRIVER.read_text(errors="replace").splitlines()[0][:80]
    return (
        f"there is a driver ({version}), but torch (CUDA {torch.version.cuda}) sees no GPU; update the driver, or"
        " install a torch for its CUDA version"
    )


def check_compiler(key: str) -> None:
    """Raises UserError if torch.compile, which `key` asks for, has no C++ compiler for what it generates.

    On a GPU Triton needs it too, for the code that starts its kernels.
    """
    wanted = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ((wanted,) if wanted else COMPILERS)):
        looked = f"CXX={wanted}" if wanted else " or ".join(COMPILERS)
        raise UserError(f"{key}=true needs a C++ compiler, and there is no {looked}; install g++, or set {key}=false")


def check_bf16(device: torch.device) -> None:
    """Raises UserError for a GPU that would only emulate bfloat16."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError(
            f"{torch.cuda.get_device_name(device)} has no bfloat16 products, which train.amp asks for; set"
            " train.amp=fp16, or train.amp=off"
        )


@contextmanager
def enough_memory(device: torch.device, remedy: str) -> Iterator[None]:
    """Inside the block, a GPU whose memory does not suffice is a UserError, which ends with the remedy."""
    try:
        yield
    except torch.OutOfMemoryError:
        total = torch.cuda.get_device_properties(device).total_memory / GIB
        name = torch.cuda.get_device_name(device)
        raise UserError(f"the memory of {name} ({total:.0f} GiB) is too small; {remedy}") from None
