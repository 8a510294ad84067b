"""Applies each mutant, one at a time, and counts those with which its tests fail: first in memory, which takes a second
or so, then those that survived, or that need it, in a copy of the project.

    python tests/mutants/run.py [PART_OF_A_NAME...]

The exit code is 0 if at least 95 % of them are killed; the names of the others are printed.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from mutants.mutant import ROOT, Mutant
from mutants.table import MUTANTS

GOAL = 0.95
LIBRARIES = (
    *("pytest", "hypothesis.extra.numpy", "hypothesis.strategies", "beartype", "jaxtyping", "torch", "torch._dynamo"),
    *("torchvision", "timm", "albumentations", "cv2", "scipy.stats", "pycocotools.cocoeval", "matplotlib.figure"),
    *("msgspec", "safetensors.torch", "yaml", "rich.console", "jinja2"),
)
LONGEST = 600  # seconds of the tests of a mutant: what does not end is noticed, too


def copied(folder: Path) -> Path:
    """A copy of all files of the project that git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _ = shutil.copy2(ROOT / name, folder / name)
    return folder


def passes(copy: Path, tests: Iterable[str]) -> bool:
    """Whether the tests pass in a child of this process, which has imported what takes long and nothing of resdet."""
    _ = sys.stdout.flush()
    child = os.fork()
    if not child:
        os.setsid()
        with open(os.devnull, "w") as nowhere:
            _ = os.dup2(nowhere.fileno(), 1)
            _ = os.dup2(nowhere.fileno(), 2)
        os.chdir(copy)
        import pytest

        paths = [f"tests/{test}" for test in tests]
        options = ["-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
        os._exit(min(255, int(pytest.main([*options, *paths]))))
    end = time.monotonic() + LONGEST
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status == 0
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            _ = os.waitpid(child, 0)
            return False
        time.sleep(0.02)


def replacer(copy: Path) -> Callable[[Mutant, str], None]:
    """Writes a text to a mutant's file, with a later time than ever before: compiled files of the text before are
    recognized by the time, in whole seconds, and by the size.
    """
    stamp = int(time.time())

    def replace(mutant: Mutant, text: str) -> None:
        nonlocal stamp
        stamp += 2
        _ = (copy / mutant.file).write_text(text)
        os.utime(copy / mutant.file, (stamp, stamp))

    return replace


def not_killed_in_memory(chosen: list[Mutant]) -> list[Mutant]:
    """Computed in a child, because a copy of the project can be imported only where the project was not."""
    with tempfile.NamedTemporaryFile() as file:
        _ = sys.stdout.flush()
        child = os.fork()
        if not child:
            code = 1
            try:
                from mutants.in_memory import verdicts

                found = verdicts(chosen)
                _ = Path(file.name).write_text(json.dumps([found[mutant] == "killed" for mutant in chosen]))
                code = 0
            except SystemExit as problem:
                print(problem, flush=True)
            finally:
                os._exit(code)
        if os.waitpid(child, 0)[1]:
            sys.exit(1)
        return [
            mutant for mutant, killed in zip(chosen, json.loads(Path(file.name).read_text()), strict=True) if not killed
        ]


def survivors(chosen: list[Mutant], copy: Path) -> list[Mutant]:
    """The mutants with which all their tests pass. Raises SystemExit if the tests fail without a mutant."""
    replace, left = replacer(copy), []
    sound: set[tuple[str, ...]] = set()
    for i, mutant in enumerate(chosen, start=1):
        if mutant.tests not in sound and not passes(copy, mutant.tests):
            sys.exit(f"{' '.join(mutant.tests)}: does not pass without a mutant")
        sound.add(mutant.tests)
        text = (copy / mutant.file).read_text()
        replace(mutant, mutant.applied(text))
        survived = passes(copy, mutant.tests)
        replace(mutant, text)
        print(f"{i}/{len(chosen)} {'SURVIVED' if survived else 'killed'} {mutant.name}", flush=True)
        left += [mutant] if survived else []
    return left


def main(parts: Sequence[str]) -> int:
    """Runs the mutants whose name has one of the parts; prints the share that was killed."""
    named = [mutant for mutant in MUTANTS if not parts or any(part in mutant.name for part in parts)]
    chosen = [mutant for mutant in named if not mutant.reason]
    excused = len(named) - len(chosen)
    doubtful = not_killed_in_memory(chosen)
    print(f"{len(chosen) - len(doubtful)} killed in memory; the others in a copy", flush=True)
    with tempfile.TemporaryDirectory(prefix="resdet-mutants-") as name:
        copy = copied(Path(name))
        sys.path[:] = [str(copy), *(path for path in sys.path if Path(path or ".").resolve() != ROOT)]
        os.environ["PYTHONPATH"] = str(copy)
        for library in LIBRARIES:  # before the fork: their import takes longer than most tests
            _ = importlib.import_module(library)
        left = survivors(doubtful, copy)
    killed = len(chosen) - len(left)
    print(f"{killed} of {len(chosen)} mutants killed ({killed / len(chosen):.1%}); {excused} more change no result")
    for mutant in left:
        print(f"survived: {mutant.name} ({' '.join(mutant.tests)})")
    return int(killed < GOAL * len(chosen))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
