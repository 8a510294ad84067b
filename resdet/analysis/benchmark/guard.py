"""Compares a benchmark with an earlier one of the same machine, by their ratios to the same peer.

Other load slows both sides of a pair, so the ratio stays where the seconds do not.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from resdet.config import Config, to_yaml
from resdet.errors import UserError
from resdet.files import read_regular
from resdet.text import printable

TOLERANCE = 0.1  # a speed below nine tenths of the earlier one is slower
PARTS = ("train", "predict")


@dataclass(frozen=True)
class Change:
    """The ratios to the peer, pair by pair, before and now; above 1, resdet is faster than the peer."""

    before: list[float]
    now: list[float]

    @property
    def speed(self) -> float:
        """Today's speed in units of the earlier one: the quotient of the medians."""
        return statistics.median(self.now) / statistics.median(self.before)

    @property
    def slower(self) -> bool:
        """Whether the speed is below the tolerance, and three in four pairs are below three in four of before."""
        return self.speed < 1 - TOLERANCE and quartiles(self.now)[1] < quartiles(self.before)[0]


def quartiles(values: list[float]) -> tuple[float, float]:
    """The lower and the upper quartile; of a single value, itself."""
    if len(values) == 1:
        return values[0], values[0]
    lower, _, upper = statistics.quantiles(values, n=4, method="inclusive")
    return lower, upper


def conditions(config: Config, device: torch.device) -> dict[str, str]:
    """What must be the same for two benchmarks to be compared."""
    return {
        "processor": processor(),
        "GPU": torch.cuda.get_device_name(device) if device.type == "cuda" else "none",
        "threads": str(torch.get_num_threads()),
        "config": to_yaml(config),
    }


def processor() -> str:
    """The processor's model and the vectors that torch uses on it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return f"{model}, {torch.backends.cpu.get_cpu_capability()}"


def read_earlier(file: Path) -> dict[str, Any]:
    """A file of `resdet benchmark --json`. Raises UserError if it is none, or has no ratios to a peer."""
    try:
        earlier = json.loads(read_regular(file))
    except (OSError, ValueError) as error:
        raise UserError(f"--against {file}: {error}; it must be torchvision or a file of --json") from None
    if not isinstance(earlier, dict) or not all(is_ratios(earlier.get(f"{part}/ratios")) for part in PARTS):
        raise UserError(
            f"--against {file}: has no ratios of pairs; make it with --against torchvision --json FILE, because seconds"
            " alone depend on the load of the machine"
        )
    return earlier


def is_ratios(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, float) and each > 0 for each in value)


def check_same(earlier: Mapping[str, Any], now: Mapping[str, Any], file: Path) -> None:
    """Raises UserError if the earlier benchmark is one of another machine, another size or another config."""
    for name in ("batch", "height", "width"):
        if earlier.get(name) != now[name]:
            raise UserError(
                f"--against {file}: was measured with {name} {printable(str(earlier.get(name)))}, not {now[name]};"
                " give it the same --size and --batch"
            )
    before = earlier.get("conditions")
    for name, value in now["conditions"].items():
        found = before.get(name) if isinstance(before, dict) else None
        if found != value:
            shown = "another config" if name == "config" else f"{name} {printable(str(found))}, not {value}"
            raise UserError(f"--against {file}: was measured with {shown}; make a new file here with --json")


def changes(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Change]:
    """The change of the training step and of the prediction."""
    return {part: Change(earlier[f"{part}/ratios"], now[f"{part}/ratios"]) for part in PARTS}
