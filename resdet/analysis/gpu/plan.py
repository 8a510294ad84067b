"""Runs the parts of the measurement one after another, the most valuable first, within a time limit.

Each part is a process of its own: an error or a hang in one (an illegal access on a GPU ends every later call of its
process) costs the others nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from resdet.analysis.gpu.record import Record
from resdet.errors import UserError

SECONDS = 450.0  # for all parts
LIMITS = {  # seconds of these for each part at most, the most valuable part first
    "environment": 40,
    "tests": 130,
    "eager": 140,
    "waits": 50,
    "kernels": 70,
    "profile": 40,
    "loader": 40,
    "compiled": 250,
}
LEAST = 10.0  # seconds with which a part is begun
LOG = "parts.log"  # what the parts print
GRACE = 5.0  # seconds between the end of a part's time and the end of its process


def measure(out: Path, *, device: str, scale: str, seconds: float, only: Sequence[str] = ()) -> bool:
    """Measures the parts named in `only` (default: all) within `seconds`; returns whether all of them succeeded.

    With another time than SECONDS the limits of the parts are longer or shorter by the same factor.

    Args:
        out: the folder of gpu.json, gpu.md and the logs. Parts that are not measured now keep their earlier values.
        device: "cuda" or "cpu".
        scale: a name in SCALES.

    Raises UserError for an unknown part, and for a folder that cannot be written.
    """
    unknown = [name for name in only if name not in LIMITS]
    if unknown:
        raise UserError(f"--only {unknown[0]}: no such part; the parts are {', '.join(LIMITS)}")
    end = time.time() + seconds
    succeeded = True
    for name in only or LIMITS:
        left = min(LIMITS[name] * seconds / SECONDS, end - time.time())
        record = Record(out)
        record.begin(name)
        if left < LEAST:
            record.end(name, "left out")
            print(f"{name}: left out, no time remained", flush=True)
            succeeded = False
            continue
        succeeded &= run_part(name, out, device=device, scale=scale, seconds=left)
    return succeeded


def run_part(name: str, out: Path, *, device: str, scale: str, seconds: float) -> bool:
    """Runs one part for at most so many seconds, and notes how it ended; returns whether it succeeded."""
    print(f"{name}: at most {seconds:.0f} s", flush=True)
    start, until = time.time(), time.time() + seconds - GRACE
    command = [sys.executable, "-m", "resdet.analysis.gpu.child", name, str(out), device, scale, str(until)]
    with (out / LOG).open("a") as log:
        child = subprocess.Popen(  # noqa: S603  # this Python, our own module
            command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=child_environment(device)
        )
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            stop(child)
    state = "cut" if code is None else "failed" if code else "done"
    problem = None if state != "failed" else last_line(out / LOG)
    Record(out).end(name, state, seconds=time.time() - start, problem=problem)
    print(f"{name}: {state} after {time.time() - start:.0f} s{f': {problem}' if problem else ''}", flush=True)
    return state == "done"


def child_environment(device: str) -> dict[str, str]:
    """The environment of a part, which imports the same package. On a CPU, Triton's interpreter runs the kernels."""
    package = str(Path(__file__).parents[3])
    paths = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": paths, **({"TRITON_INTERPRET": "1"} if device == "cpu" else {})}


def stop(child: subprocess.Popen[bytes]) -> None:
    """Ends a part and the processes that it started."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        _ = child.wait()


def last_line(log: Path) -> str:
    """The last line that a part printed: the message of its error."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "nothing was printed"
