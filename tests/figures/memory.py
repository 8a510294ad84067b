"""The memory of a training and its workers over many steps.

python tests/figures/memory.py [STEPS]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from runs import ended, nano, started, steps_of

BOUND = 1.02  # of the memory after a tenth of the steps


def shares(process: int) -> int:
    """The proportional share of the memory (Pss) of a process and its children, in kB."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    lines = [
        line for each in (process, *children) for line in Path(f"/proc/{each}/smaps_rollup").read_text().split("\n")
    ]
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def main(steps: str = "5000") -> int:
    """Prints the memory after a tenth of the steps and near their end."""
    config = nano(f"train.steps={steps}", "train.log_every=10", "train.checkpoint_every=100000", "data.workers=2")
    with tempfile.TemporaryDirectory(prefix="resdet-memory-") as folder:
        run = Path(folder) / "run"
        child, seen = started(config, run), []
        for share in (0.1, 0.95):
            while not (done := steps_of(run)) or done[-1] < share * int(steps):
                time.sleep(0.2)
            seen.append((done[-1], shares(child)))
        assert ended(child) == 0
    (first, before), (last, after) = seen
    print(f"memory of a training with two workers (Pss): {before / 1024:.1f} MB at step {first},"
          f" {after / 1024:.1f} MB at step {last} ({after / before - 1:+.2%})", flush=True)  # fmt: skip
    return int(after > before * BOUND)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
