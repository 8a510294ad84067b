"""Lets each write of a run fail in turn (opening, syncing, renaming, making a folder) with each error of a disk.

python tests/figures/disk.py [EVERY_SO_MANYTH_POINT]
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runs import BUG, MISTAKE, ended, nano, started, weights_of

ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EDQUOT": errno.EDQUOT, "EROFS": errno.EROFS}
SAME, LEFT = "resumed to the same weights", "temporary files left"
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def failing(run: Path, at: int, number: int, *, and_all_later: bool, counter: Path) -> Callable[[], None]:
    """Lets write number `at` below `run` fail, by a hook of Python that sees all; `counter` gets their number."""

    def install() -> None:
        calls = 0
        count = os.open(counter, os.O_WRONLY | os.O_CREAT, 0o666)

        def point() -> None:
            nonlocal calls
            calls += 1
            _ = os.pwrite(count, f"{calls}\n".encode(), 0)
            if calls == at or (and_all_later and calls > at):
                raise OSError(number, os.strerror(number), str(run))

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            writes = event in ("os.mkdir", "os.rename") or (event == "open" and int(arguments[2] or 0) & WRITES)
            if writes and str(arguments[0]).startswith(str(run)):
                point()

        real = os.fsync

        def fsync(descriptor: int) -> None:
            point()
            real(descriptor)

        os.fsync = fsync
        sys.addaudithook(hook)

    return install


def main(every: str = "1") -> int:
    """Prints, for each error, how the runs ended, and how many of them a resume brought to the same weights."""
    config, bad = nano("train.steps=3"), False
    with tempfile.TemporaryDirectory(prefix="resdet-disk-") as place:
        folder = Path(place)
        counter = folder / "calls"
        clean = folder / "clean"
        watched = failing(clean, 0, 0, and_all_later=False, counter=counter)
        assert ended(started(config, clean, before=watched)) == 0, (folder / "clean.0.log").read_text()
        points, expected = int(counter.read_text()), weights_of(clean)
        for name, number in ERRORS.items():
            how: Counter[str] = Counter()
            for at in range(1, points + 1, int(every)):
                run = folder / f"{name}{at}"
                hook = failing(run, at, number, and_all_later=name == "EROFS", counter=counter)
                code = ended(started(config, run, before=hook))
                said = (folder / f"{run.name}.0.log").read_text()
                lines = [line for line in said.splitlines() if line.startswith("error: ")]
                how["done" if code == 0 else "one line" if code == MISTAKE and len(lines) == 1 else "bug"] += 1
                if code == BUG:
                    print(f"{name} at write {at}: {said}", file=sys.stderr)
                same = ended(started(config, run)) == 0 and weights_of(run) == expected
                how[SAME] += same
                if not same:
                    print(f"{name} at write {at}:\n{(folder / f'{run.name}.0.log').read_text()}", file=sys.stderr)
                how[LEFT] += any(run.glob(".*.tmp"))
            tried = len(range(1, points + 1, int(every)))
            shown = ", ".join(f"{how[key]} {key}" for key in ("done", "one line", "bug", SAME, LEFT))
            print(f"{name}: {tried} of {points} writes failed in turn: {shown}", flush=True)
            bad |= how["bug"] > 0 or how[SAME] < tried or how[LEFT] > 0
    return int(bad)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
