"""Lets each write of a run fail in turn (opening, syncing, renaming, making a folder) with each error of a disk, and
fills real small disks (tmpfs) of many sizes, which only root can mount.

python tests/figures/disk.py [EVERY_SO_MANYTH_POINT [SIZES_OF_REAL_DISKS]]
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runs import BUG, MISTAKE, Config, ended, nano, started, weights_of

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


def counted(config: Config, run: Path, expected: str, how: Counter[str], **options: Any) -> None:
    """Trains with a fault, then without, and counts how the two ended."""
    code = ended(started(config, run, **options))
    said = Path(f"{run}.0.log").read_text()
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    how["done" if code == 0 else "one line" if code == MISTAKE and len(lines) == 1 else "bug"] += 1
    if code == BUG:
        print(f"{run.name}: {said}", file=sys.stderr)
    how[LEFT] += any(run.glob(".*.tmp"))
    if run.is_mount():
        _ = subprocess.run(["mount", "-o", "remount,size=100m", run], check=True)
    same = ended(started(config, run)) == 0 and weights_of(run) == expected
    how[SAME] += same
    if not same:
        print(f"{run.name}:\n{Path(f'{run}.0.log').read_text()}", file=sys.stderr)


def told(what: str, tried: int, how: Counter[str]) -> bool:
    """Prints a line of counts; whether one of them must not be."""
    print(f"{what}: {', '.join(f'{how[key]} {key}' for key in ('done', 'one line', 'bug', SAME, LEFT))}", flush=True)
    return how["bug"] > 0 or how[SAME] < tried or how[LEFT] > 0


def real_disks(config: Config, folder: Path, clean: Path, expected: str, sizes: int) -> bool:
    """Trains into tmpfs of sizes from a page to what the run needs, which get room before the resume."""
    needed, how, tried = sum(path.stat().st_size for path in clean.rglob("*")) // 1024, Counter[str](), 0
    for size in range(4, needed, max(needed // sizes, 4)):
        disk = folder / f"disk{size}"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", disk], check=False).returncode:
            print("a real full disk: this machine mounts none", flush=True)
            return False
        try:
            counted(config, disk, expected, how)
        finally:
            _ = subprocess.run(["umount", disk], check=True)
        tried += 1
    return told(f"a real full disk (tmpfs) of {tried} sizes up to {needed} kB", tried, how)


def main(every: str = "1", sizes: str = "40") -> int:
    """Prints, for each error, how the runs ended, and how many of them a resume brought to the same weights."""
    config, bad = nano("train.steps=2", "train.keep_checkpoints=1"), False
    with tempfile.TemporaryDirectory(prefix="resdet-disk-") as place:
        folder = Path(place)
        counter, clean = folder / "calls", folder / "clean"
        watched = failing(clean, 0, 0, and_all_later=False, counter=counter)
        assert ended(started(config, clean, before=watched)) == 0, (folder / "clean.0.log").read_text()
        points, expected = int(counter.read_text()), weights_of(clean)
        bad |= real_disks(config, folder, clean, expected, int(sizes))
        for name, number in ERRORS.items():
            how, tried = Counter[str](), range(1, points + 1, int(every))
            for at in tried:
                run = folder / f"{name}{at}"
                hook = failing(run, at, number, and_all_later=name == "EROFS", counter=counter)
                counted(config, run, expected, how, before=hook)
            bad |= told(f"{name}: {len(tried)} of {points} writes failed in turn", len(tried), how)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
