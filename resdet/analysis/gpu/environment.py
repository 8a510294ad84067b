"""The machine, and whether it has the packages that pyproject.toml requires."""

from __future__ import annotations

import importlib.metadata
import platform
import tomllib
from pathlib import Path

import torch
from packaging.requirements import Requirement

from resdet.analysis.gpu.record import Record
from resdet.analysis.gpu.scale import Setting
from resdet.cores import usable_cores
from resdet.errors import UserError

PROJECT = Path(__file__).parents[3] / "pyproject.toml"  # in a clone, which the script is a part of
OF_THE_TESTS = ("pytest", "pytest-timeout", "hypothesis", "beartype", "tensorboard")  # of the extra `dev`
GIB = 2**30


def environment(record: Record, setting: Setting) -> None:
    """Records the machine and its packages. Raises UserError if a required package is missing or too old."""
    device = setting.torch_device
    for key, value in machine(device).items():
        record.row("environment", "Machine", {"what": key, "value": value})
    problems = []
    for requirement in requirements(PROJECT):
        found = installed(requirement.name)
        fits = found is not None and requirement.specifier.contains(found, prereleases=True)
        record.row("environment", "Packages", {"package": str(requirement), "found": found or "missing"})
        if not fits:
            problems.append(f"{requirement} ({'missing' if found is None else f'found {found}'})")
    if problems:
        raise UserError(f"carry these packages as wheels: {', '.join(problems)}")


def machine(device: torch.device) -> dict[str, str | int | float]:
    """What determines a speed: processor, GPU, and the versions of what runs on them."""
    seen: dict[str, str | int | float] = {
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "processor": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "cores": usable_cores(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        seen |= {
            "GPU": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory (GiB)": properties.total_memory / GIB,
            "CUDA": torch.version.cuda or "",
            "cuDNN": torch.backends.cudnn.version() or 0,
            "bf16": str(torch.cuda.is_bf16_supported()),
        }
    return seen


def requirements(project: Path) -> list[Requirement]:
    """What the package and the tests of a GPU require."""
    declared = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    extras = [Requirement(line) for line in declared["optional-dependencies"]["dev"]]
    own = [Requirement(line) for line in declared["dependencies"]]
    return own + [extra for extra in extras if extra.name in OF_THE_TESTS]


def installed(name: str) -> str | None:
    """The version of a package; None if it is missing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
