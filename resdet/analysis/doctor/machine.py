"""Examines the machine: cores, memory, shared memory, disk, GPU and driver, and the hubs of pretrained weights."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Sequence
from pathlib import Path

import torch

from resdet.analysis.doctor.finding import Finding
from resdet.data.sets.cache import cache_folder
from resdet.engine.machine import unusable_driver

GIGABYTE = 1e9
SHM = "dev/shm"
HUBS = ("download.pytorch.org", "huggingface.co")
PATIENCE = 3.0  # seconds for a hub to answer
LEAST_SHM, LEAST_DISK = 1e9, 5e9  # bytes


def processor() -> Finding:
    """The cores that this process may use, and its memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    seen = f"{cores} cores, torch uses {torch.get_num_threads()} threads"
    total, free = (memory_of(Path("/proc/meminfo"), name) for name in ("MemTotal", "MemAvailable"))
    if total and free:
        seen += f", {free / GIGABYTE:.1f} of {total / GIGABYTE:.1f} GB memory free"
    return Finding("processor", "ok", seen)


def memory_of(file: Path, name: str) -> int | None:
    """A value of /proc/meminfo in bytes."""
    lines = file.read_text().splitlines() if file.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def shared_memory() -> Finding:
    """Data workers hand over batches through /dev/shm, which containers keep small."""
    folder = Path(f"/{SHM}")
    if not folder.is_dir():
        return Finding(SHM, "ok", "not used on this system")
    return shared_memory_finding(shutil.disk_usage(folder).free)


def shared_memory_finding(free: int) -> Finding:
    seen = f"{free / GIGABYTE:.2f} GB free"
    if free >= LEAST_SHM:
        return Finding(SHM, "ok", seen)
    remedy = "start the container with --shm-size=8g, or set data.workers=0"
    return Finding(SHM, "problem" if free < LEAST_SHM / 10 else "note", f"{seen}; batches go through it", remedy)


def disk() -> Finding:
    """The space for runs (here) and for generated data (the cache)."""
    cache = cache_folder()
    existing = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    free = {"here": shutil.disk_usage(Path.cwd()).free, str(cache): shutil.disk_usage(existing).free}
    seen = ", ".join(f"{place}: {size / GIGABYTE:.1f} GB free" for place, size in free.items())
    if min(free.values()) >= LEAST_DISK:
        return Finding("disk", "ok", seen)
    return Finding("disk", "note", seen, "a checkpoint takes up to 1 GB; free some space, or set RESDET_CACHE")


def gpu() -> Finding:
    """The GPUs that torch sees, and a driver that it cannot use."""
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return Finding("GPU", "ok", f"{', '.join(names)}, CUDA {torch.version.cuda}")
    if problem := unusable_driver():
        return Finding("GPU", "problem", *problem.split("; ", 1))
    return Finding("GPU", "note", "none; train.device=auto is the CPU", "train small models, such as quickstart")


def hubs() -> Finding:
    """Whether pretrained weights can be downloaded; nothing is sent but the request for a connection."""
    silent = [host for host in HUBS if not answers(host)]
    return hubs_finding(silent)


def hubs_finding(silent: Sequence[str]) -> Finding:
    if not silent:
        return Finding("hubs", "ok", f"{', '.join(HUBS)} answer")
    remedy = "give weights as files (docs/weights.md), or train with model.backbone.weights=null"
    return Finding("hubs", "note", f"no connection to {', '.join(silent)}", remedy)


def answers(host: str) -> bool:
    """Whether a host accepts a connection in time. The look-up of its name has no limit of its own, so a thread that
    may be left behind does it.
    """
    connected = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((host, 443), PATIENCE).close()
        except OSError:
            return
        connected.set()

    threading.Thread(target=connect, daemon=True).start()
    return connected.wait(PATIENCE)
