"""Computes the results of finished runs by backbone: figures with intervals, verdicts and costs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from resdet.analysis.compare.comparison import (
    AP,
    FORMAT,
    ClassFigure,
    Comparison,
    ContestantRecord,
    CostRecord,
    Curve,
    Figure,
    FigureDifference,
    Resampling,
    Run,
    Speed,
    Training,
    ValSet,
)
from resdet.analysis.compare.cost import NOT_COUNTED, Cost
from resdet.analysis.compare.learning import steps_to_reach
from resdet.analysis.compare.plan import Contestant, PlannedRun
from resdet.analysis.compare.speed import PredictionSpeed
from resdet.analysis.compare.verdict import judge
from resdet.config.diff import flat
from resdet.data.sets.coco import CocoDataset
from resdet.engine.log import SPEED
from resdet.engine.run_folder import RunFiles, RunFolder, read_run
from resdet.errors import UserError
from resdet.evaluation.analysis.bootstrap import FIGURES, Bootstrap, paired_bootstrap
from resdet.evaluation.coco import GroundTruth, read_results
from resdet.evaluation.metrics import overall
from resdet.version import __version__

IOU_TYPES = ("bbox", "segm")


@dataclass(frozen=True)
class Finished:
    """A finished run whose detections are in its folder."""

    plan: PlannedRun
    folder: RunFolder


def read_finished(contestants: Sequence[Contestant], runs: Sequence[PlannedRun]) -> dict[str, list[Finished]]:
    """The finished runs of each contestant that has any, by name, in the order of the contestants and seeds."""
    finished = [Finished(run, read_run(run.folder)) for run in sorted(runs, key=lambda run: run.seed)]
    by_name = {c.name: [run for run in finished if run.plan.contestant == c.name] for c in contestants}
    return {name: own for name, own in by_name.items() if own}


def compare(
    contestants: Sequence[Contestant],
    finished: Mapping[str, Sequence[Finished]],
    costs: Mapping[str, Cost],
    speed: PredictionSpeed | None,
    *,
    command: str,
    val_set: CocoDataset,
    truth: GroundTruth,
    missing: Mapping[str, str],
    resamples: int,
) -> Comparison:
    """The comparison; `command` is the user's command line, `missing` lists the runs that are not included, with the
    reason.

    Contestants without a finished run are left out. The first contestant that has finished runs is the one that all
    others are compared with. Raises UserError for detections that do not belong to the ground truth.
    """
    kinds = [kind for kind in IOU_TYPES if _all_have(kind, finished)]
    if AP.partition("/")[0] not in kinds:
        raise UserError(f"the runs have no {AP}, which backbones are compared by; compare configs of detectors")
    present = [contestant for contestant in contestants if contestant.name in finished]
    bootstraps = {kind: _bootstrap(kind, present, finished, val_set, truth, resamples) for kind in kinds}
    first = present[0]
    return Comparison(
        command=command,
        format=FORMAT,
        resdet=__version__,
        first=first.name,
        val=ValSet(str(val_set.annotations), len(val_set), len(val_set.boxes), list(val_set.class_names)),
        missing=dict(missing),
        bootstrap=Resampling(resamples, level=0.95),
        not_counted=NOT_COUNTED,
        config_differences=differing_keys(present),
        prediction=speed.setup if speed else None,
        contestants=[
            _contestant(
                contestant,
                first,
                finished,
                bootstraps,
                truth.class_names,
                cost=costs[contestant.name],
                speed=speed.contestants[contestant.name] if speed else None,
            )
            for contestant in present
        ],
    )


def _all_have(kind: str, finished: Mapping[str, Sequence[Finished]]) -> bool:
    return all(f"{kind}/AP" in run.folder.figures for runs in finished.values() for run in runs)


def _bootstrap(
    kind: str,
    contestants: Sequence[Contestant],
    finished: Mapping[str, Sequence[Finished]],
    val_set: CocoDataset,
    truth: GroundTruth,
    resamples: int,
) -> Bootstrap:
    detectors = {
        contestant.name: [
            read_results(RunFiles(run.plan.folder).predictions, truth) for run in finished[contestant.name]
        ]
        for contestant in contestants
    }
    images = val_set.scored_images(count_skipped=contestants[0].config.eval.count_skipped)
    images = truth.masked_images(images) if kind == "segm" else images
    return paired_bootstrap(truth, detectors, iou_type=kind, resamples=resamples, image_ids=images)


def _contestant(
    contestant: Contestant,
    first: Contestant,
    finished: Mapping[str, Sequence[Finished]],
    bootstraps: Mapping[str, Bootstrap],
    class_names: Sequence[str],
    *,
    cost: Cost,
    speed: Speed | None,
) -> ContestantRecord:
    mine, firsts = finished[contestant.name], finished[first.name]
    figures: dict[str, Figure] = {}
    differences: dict[str, FigureDifference] = {}
    for kind, bootstrap in bootstraps.items():
        for figure in FIGURES:
            name = f"{kind}/{figure}"
            interval = bootstrap.detectors[contestant.name][figure]
            figures[name] = Figure(**_over_seeds(mine, name), image_low=interval.low, image_high=interval.high,
                                   image_standard_error=interval.standard_error)  # fmt: skip
            if contestant != first:
                differences[name] = _difference(
                    bootstrap, contestant.name, figure, _values(firsts, name), _values(mine, name)
                )
    runs = [_run(run) for run in mine]
    return ContestantRecord(
        name=contestant.name,
        backbone=contestant.backbone,
        overrides=list(contestant.overrides),
        figures=figures,
        against_first=differences,
        classes={name: _class(name, mine, firsts) for name in class_names},
        training=_training(mine),
        runs=runs,
        reaches_first=[] if contestant == first else steps_to_reach([_run(run) for run in firsts], runs),
        cost=msgspec.convert(cost.to_dict(), CostRecord),
        prediction=speed,
    )


def _values(runs: Sequence[Finished], name: str) -> list[float]:
    """The figure of each seed where it is defined."""
    return [value for run in runs if (value := run.folder.figures.get(name)) is not None]


def _over_seeds(runs: Sequence[Finished], name: str) -> dict[str, Any]:
    values = _values(runs, name)
    return {
        "mean": statistics.fmean(values) if values else None,
        "seeds": values,
        "seed_std": statistics.stdev(values) if len(values) > 1 else None,
        "min": min(values, default=None),
        "max": max(values, default=None),
    }


def _difference(
    bootstrap: Bootstrap, contestant: str, figure: str, first: Sequence[float], mine: Sequence[float]
) -> FigureDifference:
    difference = bootstrap.differences[contestant][figure]
    verdict = judge(difference, first, mine, images=bootstrap.images)
    return FigureDifference(
        difference=difference.difference,
        relative=difference.relative,
        image_low=difference.low,
        image_high=difference.high,
        image_p=difference.p,
        relative_image_low=difference.relative_low,
        relative_image_high=difference.relative_high,
        verdict=verdict.word,
        **{key: value for key, value in asdict(verdict).items() if key != "word"},
    )


def _class(name: str, mine: Sequence[Finished], firsts: Sequence[Finished]) -> ClassFigure:
    key = f"{AP}/{name}"
    own, first = _over_seeds(mine, key), _over_seeds(firsts, key)["mean"]
    difference = None if own["mean"] is None or first is None else own["mean"] - first
    return ClassFigure(**own, difference=difference)


def _training(runs: Sequence[Finished]) -> Training:
    speeds = [speed for run in runs if (speed := training_speed(run.folder)) is not None]
    resources = [run.folder.resources for run in runs]
    memory = [value for each in resources if (value := each.get("peak_memory_bytes")) is not None]
    train = runs[0].folder.config.train
    return Training(
        steps=train.steps,
        batch_size=train.batch_size,
        images_per_second=statistics.median(speeds) if speeds else None,
        seconds_per_step=train.batch_size / statistics.median(speeds) if speeds else None,
        peak_memory_bytes=max(memory, default=None),
        devices=sorted({str(each["device"]) for each in resources if "device" in each}),
    )


def training_speed(run: RunFolder) -> float | None:
    """The median of the images per second; intervals that contain an evaluation are ignored if there are other
    intervals.
    """
    clean, evaluated = [], False
    everything = [values[SPEED[0]] for _, values in run.records if values.get(SPEED[0])]
    for _, values in run.records:
        if speed := values.get(SPEED[0]):
            if not evaluated:
                clean.append(speed)
            evaluated = False
        evaluated = evaluated or AP in values
    chosen = [speed for speed in clean or everything if speed is not None]
    return statistics.median(chosen) if chosen else None


def _run(run: Finished) -> Run:
    curves = {name: Curve(*run.folder.series(name)) for name in ("loss", AP)}
    return Run(
        name=run.plan.name,
        seed=run.plan.seed,
        folder=str(run.plan.folder),
        figures=overall(run.folder.figures),
        resources=dict(run.folder.resources),
        curves={name: curve for name, curve in curves.items() if curve.steps},
    )


def differing_keys(contestants: Sequence[Contestant]) -> dict[str, dict[str, Any]]:
    """The config keys whose values differ between contestants, with each contestant's value; the backbone's name only
    where the names of the contestants do not begin with it.
    """
    named = all(contestant.name.startswith(contestant.backbone) for contestant in contestants)
    configs = {contestant.name: flat(contestant.config) for contestant in contestants}
    keys = dict.fromkeys(key for leaves in configs.values() for key in leaves)
    rows = {key: {name: leaves.get(key) for name, leaves in configs.items()} for key in keys}
    return {
        key: row
        for key, row in rows.items()
        if not (named and key == "model.backbone.name")
        and any(value != row[contestants[0].name] for value in row.values())
    }
