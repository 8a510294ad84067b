"""One part of the measurement: `python -m resdet.analysis.gpu.child PART FOLDER DEVICE SCALE UNTIL`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from resdet.analysis.gpu.checks import run_tests
from resdet.analysis.gpu.environment import environment
from resdet.analysis.gpu.kernels import kernels
from resdet.analysis.gpu.loading import loading
from resdet.analysis.gpu.record import Record
from resdet.analysis.gpu.scale import SCALES, Setting
from resdet.analysis.gpu.throughput import compiled, eager
from resdet.analysis.gpu.waits import profile_of_a_step, waits

PARTS: dict[str, Callable[[Record, Setting], None]] = {
    "environment": environment,
    "tests": run_tests,
    "eager": eager,
    "waits": waits,
    "kernels": kernels,
    "profile": profile_of_a_step,
    "loader": loading,
    "compiled": compiled,
}


def main(arguments: Sequence[str]) -> None:
    """Measures one part; an error ends the process with a traceback, whose last line the parent process records."""
    name, folder, device, scale, until = arguments
    PARTS[name](Record(Path(folder)), Setting(device, SCALES[scale], float(until)))


if __name__ == "__main__":
    main(sys.argv[1:])
