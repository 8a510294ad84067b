"""One training run in a process of its own: `python -m resdet.analysis.compare.training_child CONFIG FOLDER`.

The files of --plugin follow, if any. It goes on from what FOLDER holds, and leaves resources.json there. Exit codes
are those of `resdet train`. When its standard input closes, which is the end of the process that started it, it saves
and leaves.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from resdet.config import Config, load_config
from resdet.engine.distributed import World, choose_device
from resdet.engine.evaluate_checkpoint import evaluate_checkpoint
from resdet.engine.log import printable
from resdet.engine.signals import EXIT_CODE
from resdet.engine.train import train
from resdet.errors import UserError
from resdet.files import replace_file
from resdet.plugins import load_plugins

MISTAKE = 2  # the exit code of a user's mistake
RESOURCES = "resources.json"


def main(arguments: Sequence[str]) -> int:
    """Trains to the end; returns the exit code."""
    config_file, folder, *plugins = map(Path, arguments)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    start = time.monotonic()
    try:
        load_plugins(plugins)
        config = load_config(config_file)
        try:
            _ = train(config, folder, resume=True)
            if not (folder / "predictions.json").exists():  # of a run that ended before there was such a file
                _ = evaluate_checkpoint(folder, output=folder)
        finally:
            note_resources(folder, config, time.monotonic() - start)
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


def note_resources(folder: Path, config: Config, seconds: float) -> None:
    """Adds what this process used to what earlier ones of the same run did."""
    if not folder.is_dir():  # nothing began
        return
    path = folder / RESOURCES
    before: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    device = choose_device(config.train.device, World())
    on_gpu = device.type == "cuda"
    peak = torch.cuda.max_memory_allocated(device) if on_gpu else peak_resident_memory()
    content = {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "peak_memory_bytes": max(peak, before.get("peak_memory_bytes", 0)),
        "seconds": seconds + before.get("seconds", 0.0),
    }
    replace_file(path, json.dumps(content, indent=1).encode())


def peak_resident_memory() -> int:
    """Bytes. Linux's VmHWM, because what getrusage says starts at the peak of the process that forked this one."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
