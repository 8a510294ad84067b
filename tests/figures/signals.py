"""SIGTERM at random moments of training, evaluation and saving: is every step saved, and does a resume end the same?

python tests/figures/signals.py [SIGNALS]
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from runs import STOPPED, ended, nano, newest_step, started, steps_of, weights_of


def main(count: str = "20") -> int:
    """Prints how many of the runs were ended by the signal with 143, and how many steps were lost."""
    config = nano("train.steps=60", "eval.every=5", "train.checkpoint_every=7", "data.workers=0")
    rng, stopped, lost, codes = random.Random(0), 0, 0, []
    with tempfile.TemporaryDirectory(prefix="resdet-signals-") as place:
        folder = Path(place)
        start = time.monotonic()
        assert ended(started(config, folder / "clean")) == 0, (folder / "clean.0.log").read_text()
        whole, expected = time.monotonic() - start, weights_of(folder / "clean")
        equal = runs = 0
        while stopped < int(count):
            run, code = folder / f"run{runs}", STOPPED
            while code == STOPPED:
                child = started(config, run)
                if stopped < int(count):
                    before, log = len(steps_of(run)), time.monotonic()
                    while len(steps_of(run)) <= before and time.monotonic() - log < 60 and not _over(child):
                        time.sleep(0.01)
                    time.sleep(rng.uniform(0, whole / 4))
                    if not _over(child):
                        os.kill(child, signal.SIGTERM)
                code = ended(child)
                if code == STOPPED:
                    stopped += 1
                    lost += max(steps_of(run)[-1] - newest_step(run), 0)
            codes.append(code)
            runs += 1
            equal += code == 0 and weights_of(run) == expected
        print(
            f"{stopped} SIGTERMs ended with 143, {lost} steps lost; {equal} of {runs} runs ended with the weights of"
            " a run without a signal",
            flush=True,
        )
    return int(lost > 0 or equal < runs or any(codes))


def _over(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
