"""The operators that have a kernel for a GPU, beside what they replace: the same results, and the milliseconds of each."""

from __future__ import annotations

from resdet.analysis.gpu.record import Record
from resdet.analysis.gpu.scale import Setting


def kernels(record: Record, setting: Setting) -> None:
    """NMS and RoIAlign."""
