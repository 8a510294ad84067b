"""Compares backbones as `resdet compare` does: trains what is missing, then says which is better and how surely."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from resdet.analysis.compare.compare_backbones import Request, compare_backbones, list_runs
from resdet.analysis.compare.comparison import Comparison
from resdet.analysis.compare.learning import check_figure, draw_curves
from resdet.analysis.compare.plan import read_contestants
from resdet.errors import UserError
from resdet.files import usable_paths

SAY = partial(print, flush=True)


@dataclass(frozen=True, repr=False)
class Compared:
    """A comparison: its figures and verdicts (None if no run has finished), its page, and the runs that failed, with
    the reason by name.
    """

    folder: Path
    comparison: Comparison | None
    page: Path | None
    failures: dict[str, str]

    def __repr__(self) -> str:
        state = "no finished run" if self.comparison is None else f"page {self.page}"
        return f"<Compared {self.folder}: {state}, {len(self.failures)} failures>"


def request_of(
    configs: str | Path | Sequence[str | Path],
    backbones: Sequence[str],
    output: str | Path,
    *,
    seeds: int,
    overrides: Sequence[str] = (),
    resamples: int = 1000,
    rounds: int = 5,
) -> Request:
    """The request for a comparison. Raises UserError for numbers that are too small and for lists that are texts."""
    for name, value in (("backbones", backbones), ("overrides", overrides)):
        if isinstance(value, str):
            raise UserError(f"{name}={value!r} is one text; give a list, [{value!r}]")
    files = [configs] if isinstance(configs, str | Path) else configs
    if not files:
        raise UserError("no CONFIG given; try quickstart (resdet configs lists all)")
    for name, value in (("seeds", seeds), ("resamples", resamples)):
        if value < 1:
            raise UserError(f"--{name} {value} must be at least 1")
    if rounds < 0:
        raise UserError(f"--rounds {rounds} must be 0 or more")
    return Request(
        files=[str(file) for file in files],
        overrides=list(overrides),
        backbones=list(backbones),
        seeds=seeds,
        output=Path(output),
        resamples=resamples,
        rounds=rounds,
    )


@usable_paths()
def compare(
    configs: str | Path | Sequence[str | Path],
    backbones: Sequence[str],
    output: str | Path,
    *,
    seeds: int = 1,
    overrides: Sequence[str] = (),
    jobs: int = 1,
    devices: Sequence[str] = (),
    report_only: bool = False,
    figure: str | Path | None = None,
    resamples: int = 1000,
    rounds: int = 5,
    engine: str = "local",
    address: str | None = None,
    say: Callable[[str], None] = SAY,
) -> Compared:
    """Trains each backbone with each seed, 0 .. seeds - 1, and compares all with the first one.

    `configs` are names or YAML files, `overrides` (key=value) are for all; a contestant may have its own, as in
    "resnet50:optim.lr=0.02". Finished runs in `output` are reused, interrupted ones continued. `jobs` runs at once on
    each of `devices` ("cpu", "cuda:0"). `report_only` trains nothing. `figure` is a PNG, drawn of AP over
    steps. `resamples` are those of the bootstrap over images, `rounds` those of timed predictions. `engine="ray"`
    trains on the nodes of the Ray cluster at `address` (None: the one of this machine). `say` receives the lines about
    the progress.

    Raises UserError for a user's mistake, and Stopped after a signal, when all runs have saved. A run that fails is in
    `failures`, and the others are compared.
    """
    request = request_of(
        configs, backbones, output, seeds=seeds, overrides=overrides, resamples=resamples, rounds=rounds
    )
    if figure is not None:
        check_figure(Path(figure), read_contestants(request.files, request.overrides, request.backbones))
    outcome = compare_backbones(
        request, jobs=jobs, devices=devices, train=not report_only, say=say, engine=engine, address=address
    )
    page = request.output / "compare.html" if outcome.comparison else None
    if figure is not None and outcome.comparison:
        draw_curves(outcome.comparison, Path(figure))
    return Compared(request.output, outcome.comparison, page, outcome.failures)


def planned_runs(request: Request) -> list[str]:
    """One line for each run of a comparison with its present state; nothing is written."""
    return list_runs(request)
