"""Replays a power loss before each write of a training: does the run go on from what it said to be saved?

python tests/figures/power.py [EVERY_SO_MANYTH_STATE]
"""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from runs import ended, nano, newest_step, started, weights_of

from power_loss import State, recorded, written
from resdet.engine import checkpoint
from resdet.engine.train import train


def states_of(config: Any, root: Path) -> list[tuple[Any, State]]:
    """The states that a power loss may leave of a training into root/runs/a, each with the step that was saved."""
    real = checkpoint.save_checkpoint
    with recorded(root) as disk:

        def saving(*arguments: Any, **options: Any) -> Path:
            path = real(*arguments, **options)
            disk.promised = options["step"]
            return path

        checkpoint.save_checkpoint = saving
        _ = train(config, root / "runs/a", resume=True)
    return disk.states


def main(every: str = "1") -> int:
    """Prints how many of the states go on from what was saved, and end with the weights of an undisturbed run."""
    config, how = nano("train.steps=3", "train.keep_checkpoints=1"), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="resdet-power-") as place:
        folder = Path(place)
        (folder / "disk").mkdir()
        if not (child := os.fork()):
            _ = (folder / "states").write_bytes(pickle.dumps(states_of(config, folder / "disk")))
            os._exit(0)
        assert ended(child) == 0
        states: list[tuple[int | None, State]] = pickle.loads((folder / "states").read_bytes())
        expected = weights_of(folder / "disk/runs/a")
        for number in range(0, len(states), int(every)):
            promised, state = states[number]
            run = written(state, folder / str(number)) / "runs/a"
            run.parent.mkdir(parents=True, exist_ok=True)
            how["tried"] += 1
            how["saved before"] += promised is not None
            how["lost"] += promised is not None and newest_step(run) < promised
            same = ended(started(config, run)) == 0 and weights_of(run) == expected
            how["same"] += same
            if not same:
                print(f"state {number}: {(folder / f'{number}/runs/a.0.log').read_text()}", file=sys.stderr)
    print(
        f"power loss: {how['tried']} of {len(states)} states of the disk around each write of a run; {how['lost']} of"
        f" the {how['saved before']} after a save lost it; {how['same']} resumed to the same weights",
        flush=True,
    )
    return int(how["lost"] > 0 or how["same"] < how["tried"])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
