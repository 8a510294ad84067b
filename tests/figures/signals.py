"""SIGTERM in warm-up, training, evaluation and saving: is every step saved, and does a resume end the same?

python tests/figures/signals.py [SIGNALS_IN_EACH_OF_THE_FOUR]
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runs import STOPPED, ended, nano, newest_step, started, steps_of, weights_of

from resdet.appended_file import Appended
from resdet.engine.evaluate import detections

WARM_UP, STEPS = 12, 40
PLACES = ("warm-up", "training", "evaluation", "saving")


def terminated_at(moment: int, calls: list[int], after: float = 0.0) -> None:
    """Counts a call; at number `moment` SIGTERM reaches this process, `after` that many seconds."""
    calls.append(1)
    if len(calls) != moment:
        return
    if after:
        threading.Timer(after, os.kill, (os.getpid(), signal.SIGTERM)).start()
    else:
        os.kill(os.getpid(), signal.SIGTERM)


def interrupted(place: str, rng: random.Random) -> Callable[[], None]:
    """Lets SIGTERM reach a child at a random moment of a place, by what it calls there."""

    def install() -> None:
        calls: list[int] = []
        if place == "evaluation":  # three evaluations, two batches each
            moment, real = rng.randint(1, 6), detections.predict_batch

            def predict(*arguments: Any, **options: Any) -> Any:
                terminated_at(moment, calls)
                return real(*arguments, **options)

            detections.predict_batch = predict
        elif place == "saving":  # five syncs and more a save
            moment, sync = rng.randint(1, 25), os.fsync

            def fsync(descriptor: int) -> None:
                if "/checkpoints" in os.readlink(f"/proc/self/fd/{descriptor}"):
                    terminated_at(moment, calls)
                sync(descriptor)

            os.fsync = fsync
        else:
            step = rng.randint(1, WARM_UP - 1) if place == "warm-up" else rng.randint(WARM_UP, STEPS - 2)
            after, add = rng.uniform(0.001, 0.04), Appended.add

            def added(self: Appended, text: str) -> str | None:
                if text.startswith("{") and "bbox/AP" not in text:  # the metrics of a step
                    terminated_at(step, calls, after)
                return add(self, text)

            Appended.add = added

    return install


def evaluations(run: Path) -> list[Any]:
    """The figures by step that a run recorded."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [(line["step"], line["bbox/AP"]) for line in lines if "bbox/AP" in line]


def main(count: str = "5") -> int:
    """Prints, for each place, how many runs the signal ended with 143, and whether anything was lost."""
    config = nano(f"train.steps={STEPS}", f"optim.warmup_steps={WARM_UP}", "eval.every=15", "train.checkpoint_every=7")
    bad = False
    with tempfile.TemporaryDirectory(prefix="resdet-signals-") as place:
        folder = Path(place)
        assert ended(started(config, folder / "clean")) == 0, (folder / "clean.0.log").read_text()
        expected, figures = weights_of(folder / "clean"), evaluations(folder / "clean")
        for where in PLACES:
            how = Counter[str]()
            for number in range(int(count)):
                run = folder / f"{where}{number}"
                how["143"] += (
                    ended(started(config, run, before=interrupted(where, random.Random(f"{where} {number}"))))
                    == STOPPED
                )
                done = steps_of(run)
                how["lost"] += max(done[-1] - newest_step(run), 0) if done else 0
                same = ended(started(config, run)) == 0 and weights_of(run) == expected
                how["same"] += same and evaluations(run) == figures
            print(
                f"{count} SIGTERMs in {where}: {how['143']} ended with 143, {how['lost']} steps lost;"
                f" {how['same']} runs ended with the weights and figures of a run without a signal",
                flush=True,
            )
            bad |= how["143"] < int(count) or how["lost"] > 0 or how["same"] < int(count)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
