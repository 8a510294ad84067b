"""One training run in its own process: `python -m resdet.analysis.compare.training_child CONFIG FOLDER`.

The files of --plugin follow, if any. The run continues from the newest checkpoint in FOLDER. Exit codes are those of
`resdet train`. When its standard input closes, because the parent process has ended, it saves and exits.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from resdet.config import load_config
from resdet.engine.evaluate_checkpoint import evaluate_checkpoint
from resdet.engine.run_folder import RunFiles
from resdet.engine.signals import EXIT_CODE
from resdet.engine.train import train
from resdet.errors import UserError
from resdet.plugins import load_plugins
from resdet.text import printable

MISTAKE = 2  # the exit code of a user's mistake


def start_child(arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Starts the process in its own session: a Ctrl-C in the terminal reaches it only through this process, and only
    once. `arguments` are those of `main`; what it says is appended to `log`.
    """
    with log.open("ab") as file:
        return subprocess.Popen(  # noqa: S603  # this Python, our own module
            [sys.executable, "-m", __name__, *arguments],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )


def end_child(child: subprocess.Popen[bytes]) -> int:
    """Waits for the process, and returns its exit code. Its standard input stays open until then, because closing it
    would stop the process.
    """
    code = child.wait()
    assert child.stdin is not None
    child.stdin.close()
    return code


def main(arguments: Sequence[str]) -> int:
    """Trains to the end; returns the exit code."""
    config_file, folder, *plugins = map(Path, arguments)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    try:
        load_plugins(plugins)
        _ = train(load_config(config_file), folder, resume=True)
        if not RunFiles(folder).predictions.exists():  # of a run that ended before there was such a file
            _ = evaluate_checkpoint(folder, output=folder)
    except UserError as error:
        print(f"error: {printable(str(error))}", flush=True)
        return MISTAKE
    except KeyboardInterrupt as stop:
        print(str(stop) or "interrupted", flush=True)
        return EXIT_CODE
    return 0


def _leave_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
