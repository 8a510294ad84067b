"""Hands many damaged or hostile inputs to a function, in a child process, and counts how each ends."""

from __future__ import annotations

import os
import random
import select
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

SLOW = 5.0  # seconds of the processor
HANGS = 60.0  # seconds, after which a case is ended


def attacked(cases: Iterable[int], attempt: Callable[[int], None], canary: Path) -> Counter[str]:
    """The number of cases that were `accepted`, `refused` in one line, that ended in a `traceback`, took `over 5 s`,
    had to be ended (`hang`), ended the process (`crash`) or left the `canary`. `attempt` gets the number of a case.
    """
    counts: Counter[str] = Counter()
    left = list(cases)
    while left:
        left = left[_in_a_child(left, attempt, canary, counts) :]
    return counts


def _in_a_child(cases: list[int], attempt: Callable[[int], None], canary: Path, counts: Counter[str]) -> int:
    """The number of cases that were done until the child ended."""
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        os.close(reads)
        for case in cases:
            start = time.process_time()
            verdict = _verdict(case, attempt)
            _ = os.write(writes, f"{time.process_time() - start} {verdict}\n".encode())
        os._exit(0)
    os.close(writes)
    done = 0
    with os.fdopen(reads, "rb", buffering=0) as answers:
        while done < len(cases):
            line = b""
            if select.select([answers], [], [], HANGS)[0]:
                line = _line(answers.fileno())
                spent, _, verdict = (line.decode() or "0 crash").partition(" ")
            else:
                spent, verdict = "0", "hang"
            done += 1
            counts[verdict.partition(" ")[0]] += 1
            if float(spent) > SLOW:
                counts["over 5 s"] += 1
                print(f"case {cases[done - 1]}: {float(spent):.1f} s, {verdict}", file=sys.stderr)
            if canary.exists():
                counts["canary"] += 1
                canary.unlink()
            if verdict not in ("accepted", "refused"):
                print(f"case {cases[done - 1]}: {verdict}", file=sys.stderr)
            if not line:
                break
    os.kill(child, signal.SIGKILL)
    _ = os.waitpid(child, 0)
    return done


def _line(descriptor: int) -> bytes:
    line = b""
    while (character := os.read(descriptor, 1)) not in (b"", b"\n"):
        line += character
    return line


def _verdict(case: int, attempt: Callable[[int], None]) -> str:
    from resdet.errors import UserError

    try:
        attempt(case)
    except UserError as error:
        return "refused" if len(str(error).splitlines()) == 1 else "traceback of several lines"
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"traceback {type(error).__name__}: {str(error)!a} at {place.filename}:{place.lineno}"
    return "accepted"


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Some bytes flipped, cut out, doubled, inserted or overwritten; or the end cut off."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        place, length = rng.randrange(len(content) + 1), rng.choice((1, 1, 2, 8, 64))
        kind = rng.choice((0, 0, 0, 1, 2, 3, 4, 4, 5))
        if kind == 0 and content:
            content[place % len(content)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del content[place : place + length]
        elif kind == 2:
            content[place:place] = content[place : place + length]
        elif kind == 3:
            content[place:place] = rng.randbytes(length)
        elif kind == 4:
            content[place : place + length] = bytes([rng.choice((0, 127, 128, 255))]) * length
        else:
            del content[place + 1 :]
    return bytes(content)


ENDS = ("accepted", "refused", "traceback", "hang", "crash")


def failed(name: str, counts: Counter[str]) -> bool:
    """Prints the counts in one line; whether anything is among them that must not be."""
    shown = ", ".join(f"{counts[key]} {key}" for key in (*ENDS, "canary", "over 5 s"))
    print(f"{name}: {sum(counts[key] for key in ENDS)} cases, {shown}", flush=True)
    return any(counts[key] for key in ("traceback", "hang", "crash", "canary"))
