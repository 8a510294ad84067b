"""Commands of resdet in processes of their own that do not import it: a server that has imported it once forks them."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path

PRELOADED = ("resdet.workflows.train", "resdet.cli.train", "resdet.engine.evaluate_checkpoint", "albumentations")


STARTED: list[Command] = []


@atexit.register
def end_all() -> None:
    """Kills what is left: at the end Python would wait for it, after a test that failed."""
    while STARTED:
        process = STARTED.pop()
        process.kill()
        _ = process.wait()


def server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED, "forked"])
    return context


class Command:
    """`resdet ARGUMENTS` in a process that leads its own group, with the methods of subprocess.Popen that tests use."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str] | None = None, *,
                 backend: str | None = None) -> None:  # fmt: skip
        """`backend`: what torch.compile takes in place of its own."""
        self.args = list(arguments)
        folder = Path(tempfile.mkdtemp(dir=os.environ["RESDET_CACHE"]))  # which is removed after all tests
        self._said = [folder / name for name in ("stdout", "stderr")]
        self._process = server().Process(
            target=_run, args=(self.args, [str(path) for path in self._said], dict(environment or {}), backend)
        )
        self._process.start()
        STARTED.append(self)
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def terminate(self) -> None:
        self._process.terminate()

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; minus the number of the signal that ended the process."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What the process said on stdout and stderr."""
        _ = self.wait(timeout)
        out, err = (path.read_text() if path.exists() else "" for path in self._said)
        return out, err


def _run(arguments: list[str], said: list[str], environment: dict[str, str], backend: str | None) -> None:
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # for data workers, as in a process of its own
    for descriptor, path in enumerate(said, start=1):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        _ = os.dup2(opened, descriptor)
        os.close(opened)
    os.environ |= environment
    import warnings

    import torch

    warnings.filterwarnings("ignore", "This DataLoader will create")  # where there are fewer cores than workers

    from resdet.cli.main import main

    torch.set_num_threads(1)
    if backend:
        from functools import partial

        setattr(torch, "compile", partial(torch.compile, backend=backend))  # noqa: B010
    sys.exit(main(arguments))
