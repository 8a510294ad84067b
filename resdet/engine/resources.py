"""The resources of a training: memory, seconds and device."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Usage:
    """The usage of the leading process since `start` (time.monotonic()) and, in `before`, of earlier processes of the
    run.
    """

    device: torch.device
    start: float
    before: Mapping[str, Any]

    def so_far(self) -> dict[str, Any]:
        """The keys device, threads, torch; peak_memory_bytes, the largest of all processes; seconds, their sum.

        The memory is that of a GPU's tensors or of the process; on a GPU, peak_host_memory_bytes is the process's.
        """
        on_gpu = self.device.type == "cuda"
        content: dict[str, Any] = {
            "device": torch.cuda.get_device_name(self.device) if on_gpu else "cpu",
            "threads": torch.get_num_threads(),
            "torch": str(torch.__version__),
            "peak_memory_bytes": max(peak_memory(self.device), _number(self.before, "peak_memory_bytes")),
            "seconds": time.monotonic() - self.start + _number(self.before, "seconds"),
        }
        if on_gpu:
            peak = max(peak_resident_memory(), _number(self.before, "peak_host_memory_bytes"))
            content["peak_host_memory_bytes"] = peak
        return content


def peak_memory(device: torch.device) -> int:
    """The peak memory in bytes: of the GPU's tensors, or the process's resident memory."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_resident_memory()


def peak_resident_memory(status: Path = Path("/proc/self/status")) -> int:
    """Bytes. This is Linux's VmHWM, because the value of getrusage includes the peak of the parent process before the
    fork.
    """
    lines = status.read_text().splitlines() if status.exists() else []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * rusage_unit(sys.platform)


def rusage_unit(platform: str) -> int:
    """The unit of ru_maxrss in bytes: macOS counts bytes, Linux and the BSDs count kilobytes."""
    return 1 if platform == "darwin" else 1024


def _number(values: Mapping[str, Any], name: str) -> int | float:
    """The number that an earlier process wrote; 0 if it wrote no usable number."""
    value = values.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0
