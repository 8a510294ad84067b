"""Examines the machine: cores, memory, shared memory, disk, GPU and driver, and the hubs of pretrained weights."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from huggingface_hub import constants

from resdet.analysis.doctor.finding import Finding
from resdet.cores import usable_cores
from resdet.data.images.kept import free_memory
from resdet.data.sets.cache import cache_folder
from resdet.downloads import reachable
from resdet.engine.machine import check_compiler, unusable_driver
from resdet.errors import UserError

GIGABYTE = 1e9
SHM = "dev/shm"
HUBS = ("https://download.pytorch.org", constants.ENDPOINT)
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of processor time, or max, in each period
PATIENCE = 3.0  # seconds for a hub to answer
LEAST_SHM, LEAST_DISK = 1e9, 5e9  # bytes


def processor() -> Finding:
    """The cores that this process may use, what a container gives it of them, and the memory that is free."""
    quota = cores_of(QUOTA.read_text()) if QUOTA.is_file() else None
    return processor_finding(usable_cores(), quota, torch.get_num_threads(), free_memory())


def processor_finding(cores: int, quota: float | None, threads: int, free: int | None) -> Finding:
    """`quota`: the time of so many cores is what a container may take."""
    seen = f"{cores} cores, torch uses {threads} threads"
    if free is not None:
        seen += f", {free / GIGABYTE:.1f} GB memory free"
    if quota is None or threads <= math.ceil(quota):
        return Finding("processor", "ok", seen)
    remedy = f"set OMP_NUM_THREADS={math.ceil(quota)}: more threads wait for one another"
    return Finding("processor", "note", f"{seen}; the container gives the time of {quota:g} cores", remedy)


def cores_of(quota: str) -> float | None:
    """The cores whose time a cgroup may take, from the text of its cpu.max; None if there is no limit."""
    allowed, _, period = quota.strip().partition(" ")
    return None if allowed == "max" else int(allowed) / int(period)


def compiler() -> Finding:
    """What torch.compile needs; nothing else of resdet is compiled."""
    try:
        check_compiler("train.compile")
    except UserError as error:
        seen, _, remedy = str(error).partition("; ")
        return Finding("compiler", "note", seen, remedy)
    return Finding("compiler", "ok", "there is one, for train.compile and test.compile")


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
    silent = [hub for hub in HUBS if not reachable(hub, PATIENCE)]
    return hubs_finding(silent, told_offline=constants.HF_HUB_OFFLINE)


def hubs_finding(silent: Sequence[str], *, told_offline: bool) -> Finding:
    """`told_offline`: the environment forbids Hugging Face's client to use the network."""
    if silent:
        remedy = "give weights as files (docs/weights.md), or train with model.backbone.weights=null"
        return Finding("hubs", "note", f"no connection to {', '.join(silent)}", remedy)
    if told_offline:
        return Finding("hubs", "note", "HF_HUB_OFFLINE is set: hf:// and timm take what the cache has", "unset it")
    return Finding("hubs", "ok", f"{', '.join(HUBS)} answer")
