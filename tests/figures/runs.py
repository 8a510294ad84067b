"""Trains the nano config in children of a process that has imported everything, and compares how the runs ended."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from resdet.config import Config, load_config
from resdet.engine.checkpoint import checkpoints, newest_checkpoint, read_model_file
from resdet.engine.signals import Stopped
from resdet.engine.train import train
from resdet.errors import UserError

ROOT = Path(__file__).parents[2]
NANO = (
    *("data.shapes.train_images=8", "data.shapes.val_images=4", "train.log_every=1", "optim.warmup_steps=2"),
    *("train.device=cpu", "train.checkpoint_every=1"),
)
STOPPED, MISTAKE, BUG = 143, 2, 1  # exit codes


def nano(*overrides: str) -> Config:
    return load_config(ROOT / "configs/nano.yaml", overrides=[*NANO, *overrides])


def started(config: Config, run: Path, *, rank: int = 0, size: int = 1, port: int = 0,
            before: Callable[[], None] | None = None) -> int:  # fmt: skip
    """The id of a child that trains `config` into `run`, going on where it was; what it says is in RUN.log."""
    _ = sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = BUG
    try:
        os.setsid()
        said = os.open(f"{run}.{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        _ = os.dup2(said, 1)
        _ = os.dup2(said, 2)
        torch.set_num_threads(1)
        if size > 1:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size),
                           "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
        if before:
            before()
        code = _code(config, run)
    finally:
        _ = sys.stdout.flush()
        os._exit(code)


def _code(config: Config, run: Path) -> int:
    try:
        _ = train(config, run, resume=True)
    except Stopped:
        return STOPPED
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return MISTAKE
    except BaseException:
        import traceback

        traceback.print_exc()
        return BUG
    return 0


def ended(child: int) -> int:
    """The exit code of a child; minus the number of the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def weights_of(run: Path) -> str:
    """The sha256 of the weights of a finished run; not of their file, whose head has its texts in any order."""
    weights, digest = read_model_file(checkpoints(run)[-1] / "model.safetensors").weights, hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].numpy().tobytes())
    return digest.hexdigest()


def over(child: int) -> bool:
    """Whether a child has ended, without taking its exit code."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def saves(run: Path) -> set[tuple[str, int]]:
    """The checkpoints that are half written, or half removed."""
    found = set[tuple[str, int]]()
    for path in (run / "checkpoints").glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            found.add((path.name, path.stat().st_ino))
    return found


def steps_of(run: Path) -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    return []


def newest_step(run: Path) -> int:
    """The step of the newest sound checkpoint. Raises UserError without one, ValueError if a newer one is damaged."""
    path, skipped = newest_checkpoint(run)
    if skipped:
        raise ValueError(skipped)
    return int(path.name.removeprefix("step_"))
