"""A comparison of backbones from beginning to end: it plans the runs, trains them, reads them and writes
the results."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from resdet.analysis.compare.comparison import Comparison
from resdet.analysis.compare.conclusions import compare, read_finished
from resdet.analysis.compare.cost import Cost, cost, typical_size
from resdet.analysis.compare.page import comparison_page
from resdet.analysis.compare.places import Place, make_slots, places_on_cluster
from resdet.analysis.compare.plan import (
    Contestant,
    PlannedRun,
    check_unchanged,
    is_finished,
    planned_runs,
    read_contestants,
)
from resdet.analysis.compare.schedule import alone_in, described_ap, train_all
from resdet.analysis.compare.speed import PredictionSpeed, kept_prediction_speed, prediction_speed
from resdet.data.batches.loader import open_split
from resdet.data.sets.coco import CocoDataset
from resdet.engine.checkpoint import checkpoints
from resdet.engine.evaluate import evaluated_set
from resdet.errors import UserError
from resdet.files import readable_json
from resdet.outputs import check_outputs, signed, write_outputs
from resdet.plugins import loaded_plugins
from resdet.ray_cluster import check_engine

SPEED = "prediction_speed.json"
PAGE_FILES = ("compare.json", "compare.html")


@dataclass(frozen=True)
class Request:
    """The request for a comparison: configs and overrides for all contestants, the contestants, and seeds 0 .. seeds -
    1.
    """

    files: Sequence[str]
    overrides: Sequence[str]
    backbones: Sequence[str]
    seeds: int
    output: Path
    resamples: int = 1000
    rounds: int = 5


@dataclass(frozen=True)
class Outcome:
    """The result: the comparison (None when no run has finished) and, by name, the reason why a run failed."""

    comparison: Comparison | None
    failures: dict[str, str] = field(default_factory=dict)


def list_runs(request: Request) -> list[str]:
    """One line for each run with its present state. Writes nothing. Raises UserError as `compare_backbones` does."""
    _, runs = _plan(request)
    lines = [f"{len(runs)} runs of {runs[0].config.train.length} in {request.output}"]
    return lines + [f"  {run.name}: {_state(run)}" for run in runs]


def compare_backbones(
    request: Request,
    *,
    jobs: int,
    devices: Sequence[str],
    train: bool,
    say: Callable[[str], None],
    engine: str = "local",
    address: str | None = None,
) -> Outcome:
    """Trains the runs that are missing (with `train`), and writes compare.json and compare.html into the request's
    output.

    Raises UserError for a user's mistake, before the training if the mistake can be detected then, and Stopped after a
    signal, when all runs have saved. A failed run is listed in the outcome, and the other runs are compared. With
    `engine` "ray" the cluster at `address` trains, and says itself how many runs it has room for.
    """
    check_engine(engine, address)
    if engine == "ray" and (jobs != 1 or devices):
        raise UserError("--jobs and --devices are about one machine; leave them out with --engine ray")
    contestants, runs = _plan(request)
    val_set = evaluated_set(contestants[0].config)
    # Generated data are made here, so that several runs do not make them at the same time.
    _ = open_split(contestants[0].config.data, "train")
    costs = _costs(contestants, val_set)
    if not train and not any(map(is_finished, runs)):
        raise UserError(f"{request.output}: has no finished run of these; leave --report-only out to train them")
    local = nullcontext(make_slots(devices, jobs))
    check_outputs(request.output, PAGE_FILES)
    on_cluster = engine == "ray" and train
    where: AbstractContextManager[Sequence[Place]] = (
        places_on_cluster(address, [run.config.train.device for run in runs], request.output) if on_cluster else local
    )
    with where as places, alone_in(request.output):
        failures = _train(runs, request, places, say) if train else {}
        finished = [run for run in runs if is_finished(run)]
        if not finished:
            return Outcome(None, failures)
        missing = {run.name: failures.get(run.name) or _state(run) for run in runs if run not in finished}
        for name, reason in missing.items():
            say(f"missing: {name}: {reason}")
        comparison = _comparison(request, contestants, finished, costs, missing, val_set, say)
        page = comparison_page(comparison).encode()
        write_outputs(request.output, dict(zip(PAGE_FILES, (comparison.to_json(), page), strict=True)))
    return Outcome(comparison, failures)


def _plan(request: Request) -> tuple[list[Contestant], list[PlannedRun]]:
    contestants = read_contestants(request.files, request.overrides, request.backbones)
    runs = planned_runs(contestants, request.seeds, request.output)
    for run in runs:
        check_unchanged(run)
    return contestants, runs


def _state(run: PlannedRun) -> str:
    """The state of a run, in words."""
    if is_finished(run):
        return f"finished, {described_ap(run)}"
    saved = checkpoints(run.folder)
    return f"interrupted, to go on from {saved[-1].name}" if saved else "not begun"


def _costs(contestants: Sequence[Contestant], val_set: CocoDataset) -> dict[str, Cost]:
    """Building every detector also checks that its parts fit together. Raises UserError that names the contestant."""
    costs: dict[str, Cost] = {}
    for contestant in contestants:
        config = contestant.config
        try:
            size = typical_size(val_set, config.data.augment)
            costs[contestant.name] = cost(config, len(val_set.class_names), size)
        except UserError as error:
            raise UserError(f"--backbones {contestant.name}: {error}") from None
    return costs


def _train(
    runs: Sequence[PlannedRun], request: Request, places: Sequence[Place], say: Callable[[str], None]
) -> dict[str, str]:
    for run in runs:
        if is_finished(run):
            say(f"{run.name}: {_state(run)}")
    return train_all([run for run in runs if not is_finished(run)], request.output, places, say=say)


def _comparison(
    request: Request,
    contestants: Sequence[Contestant],
    finished: Sequence[PlannedRun],
    costs: Mapping[str, Cost],
    missing: Mapping[str, str],
    val_set: CocoDataset,
    say: Callable[[str], None],
) -> Comparison:
    by_contestant = read_finished(contestants, finished)
    speed = _speed(request, [runs[0].plan for runs in by_contestant.values()], val_set, say)
    truth = val_set.ground_truth(count_skipped=contestants[0].config.eval.count_skipped)
    return compare(
        contestants,
        by_contestant,
        costs,
        speed,
        command=_command(request),
        val_set=val_set,
        truth=truth,
        missing=missing,
        resamples=request.resamples,
    )


def _speed(
    request: Request, runs: Sequence[PlannedRun], val_set: CocoDataset, say: Callable[[str], None]
) -> PredictionSpeed | None:
    """Measured once for the same contestants; later reports reuse it, because the checkpoints may be gone by then."""
    path = request.output / SPEED
    if kept := kept_prediction_speed(path, [run.contestant for run in runs]):
        return kept
    if not request.rounds:
        return None
    if without := [run.name for run in runs if not checkpoints(run.folder)]:
        say(f"prediction is not timed: no checkpoint of {', '.join(without)}")
        return None
    say(f"timing predictions: {request.rounds} rounds of {len(runs)} detectors in turns")
    speed = prediction_speed([(r.contestant, r.config, r.folder) for r in runs], val_set, rounds=request.rounds)
    write_outputs(request.output, {SPEED: readable_json(signed(msgspec.to_builtins(speed)))})
    return speed


def _command(request: Request) -> str:
    """The command as the user would type it again."""
    plugins = [word for file in loaded_plugins() for word in ("--plugin", str(file))]
    words = ["resdet", "compare", *request.files, *request.overrides, *plugins, "--backbones", *request.backbones]
    return shlex.join([*words, "--seeds", str(request.seeds), "--output", str(request.output)])
