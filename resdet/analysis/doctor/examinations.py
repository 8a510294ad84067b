"""All examinations in their order: the quick ones first."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from resdet.analysis.doctor import installation, machine, trial
from resdet.analysis.doctor.finding import Finding

QUICK: tuple[Callable[[], Finding], ...] = (
    installation.packages,
    installation.other_packages,
    installation.torch_and_torchvision,
    installation.opencv,
    installation.shipped_files,
    machine.processor,
    machine.compiler,
    machine.shared_memory,
    machine.disk,
    machine.gpu,
    machine.hubs,
    trial.evaluators,
)


def examine(*, train: bool = True) -> Iterator[Finding]:
    """The findings one by one; the last one trains for some seconds, unless `train` is False."""
    for look in QUICK:
        yield look()
    if train:
        yield trial.training()
