"""Watches the other processes of a training: if one of them dies, the rest end soon, with one line that names it."""

from __future__ import annotations

import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from resdet.errors import UserError

LOOKS_EVERY = 0.5  # seconds
CLOSING = 5.0  # seconds between the loss of a connection and the death of its process
GRACE = 12.0  # seconds for the main thread to notice a dead process; a GPU's exchange waits for it for minutes
FAILED = 2  # the exit code
# What gloo and NCCL say about a lost connection; both raise a plain RuntimeError.
LOST = ("Connection closed", "Connection reset", "Broken pipe", "Connection refused", "NCCL", "Socket closed")


@dataclass(frozen=True)
class Peer:
    """A process of the training; `machine` tells apart process ids that do not refer to the same process."""

    machine: str
    process: int

    @classmethod
    def here(cls) -> Peer:
        namespace = Path("/proc/self/ns/pid")
        inside = namespace.stat().st_ino if namespace.exists() else ""
        return cls(f"{platform.node()} {inside}", os.getpid())

    def is_dead(self) -> bool:
        """Only for a process of this machine; one that has ended and was not waited for is dead, too."""
        try:
            os.kill(self.process, 0)
            stat = Path(f"/proc/{self.process}/stat")
            return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"
        except ProcessLookupError:
            return True
        except OSError:  # another user's process, or it ended between the two lines
            return False


class Peers:
    """The processes by rank, seen from rank `rank`."""

    def __init__(self, peers: Sequence[Peer], rank: int) -> None:
        here = peers[rank].machine
        self.rank = rank
        self.local = {number: peer for number, peer in enumerate(peers) if peer.machine == here and number != rank}
        self._parent = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None
        self._left = threading.Event()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While the block runs, the death of another process is a UserError, or ends this process after a while; the
        death of torchrun is a request to stop.
        """
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        except RuntimeError as error:
            lost = any(words in str(error) for words in LOST)
            dead = self._dead(wait=CLOSING if lost else 0.0)
            if not lost and not dead:
                raise
            raise self.report(dead) from None
        finally:
            self._left.set()
            thread.join()

    def report(self, dead: Sequence[int]) -> UserError | SystemExit:
        """The error; a machine has one process that speaks, and the others leave silently."""
        if self.rank != min({self.rank, *self.local} - set(dead)):
            return SystemExit(FAILED)
        return UserError(self.line(dead))

    def line(self, dead: Sequence[int]) -> str:
        """The line for dead processes of this machine, or of another."""
        who = ", ".join(f"rank {number} (process {self.local[number].process})" for number in dead)
        return (
            f"{who or 'a process on another machine'} has ended, so all stop (a line above may say why; if it was"
            " killed, memory may have run out); give the same command again, to train with --resume"
        )

    def _dead(self, *, wait: float) -> list[int]:
        end = time.monotonic() + wait
        while True:
            dead = [number for number, peer in self.local.items() if peer.is_dead()]
            if dead or time.monotonic() >= end:
                return dead
            time.sleep(0.1)

    def _watch(self) -> None:
        since = None
        while not self._left.wait(LOOKS_EVERY):
            if self._parent is not None and os.getppid() != self._parent:
                self._parent = None
                os.kill(os.getpid(), signal.SIGTERM)
            dead = self._dead(wait=0.0)
            if not dead:
                continue
            since = since or time.monotonic()
            if time.monotonic() - since > GRACE:
                if isinstance(error := self.report(dead), UserError):
                    print(f"error: {error}", file=sys.stderr, flush=True)
                os._exit(FAILED)
