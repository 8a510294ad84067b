"""What finished runs say of their backbones: figures with intervals, verdicts, costs. The content of compare.json."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from resdet.analysis.compare.contestants import Contestant, PlannedRun
from resdet.analysis.compare.cost import NOT_COUNTED, Cost
from resdet.analysis.compare.verdict import judge
from resdet.data.sets.coco import CocoDataset
from resdet.engine.evaluate import masked_images
from resdet.engine.log import SPEED
from resdet.engine.run_folder import RunFiles, RunFolder, read_run
from resdet.engine.state import flat
from resdet.errors import UserError
from resdet.evaluation.analysis.bootstrap import FIGURES, Bootstrap, paired_bootstrap
from resdet.evaluation.coco import GroundTruth, read_results
from resdet.version import __version__

IOU_TYPES = ("bbox", "segm")
HEADLINE = "bbox/AP"


@dataclass(frozen=True)
class Finished:
    """A finished run with its detections at hand in its folder."""

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
    speed: Mapping[str, Any] | None,
    *,
    val_set: CocoDataset,
    truth: GroundTruth,
    missing: Mapping[str, str],
    resamples: int,
) -> dict[str, Any]:
    """The comparison as plain data. Contestants without a finished run are left out; `missing` says which runs are.

    The first contestant that has finished runs is the one that all others are compared with. Raises UserError for
    detections that do not belong to the ground truth.
    """
    kinds = [kind for kind in IOU_TYPES if _all_have(kind, finished)]
    if HEADLINE.partition("/")[0] not in kinds:
        raise UserError(f"the runs have no {HEADLINE}, which backbones are compared by; compare configs of detectors")
    present = [contestant for contestant in contestants if contestant.name in finished]
    bootstraps = {kind: _bootstrap(kind, present, finished, val_set, truth, resamples) for kind in kinds}
    first = present[0]
    return {
        "format": "resdet compare 1",
        "resdet": __version__,
        "first": first.name,
        "val": {
            "annotations": str(val_set.annotations),
            "images": len(val_set),
            "objects": len(val_set.boxes),
            "classes": list(val_set.class_names),
        },
        "missing": dict(missing),
        "bootstrap": {"resamples": resamples, "level": 0.95},
        "not_counted": NOT_COUNTED,
        "config_differences": _differing(present),
        "prediction": {key: value for key, value in speed.items() if key != "contestants"} if speed else None,
        "contestants": [
            _contestant(contestant, first, finished, bootstraps, truth.class_names)
            | {"cost": costs[contestant.name].to_dict()}
            | {"prediction": speed["contestants"][contestant.name] if speed else None}
            for contestant in present
        ],
    }


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
    images = val_set.image_ids.tolist() if kind == "bbox" else masked_images(val_set, truth)
    return paired_bootstrap(truth, detectors, iou_type=kind, resamples=resamples, image_ids=images)


def _contestant(
    contestant: Contestant,
    first: Contestant,
    finished: Mapping[str, Sequence[Finished]],
    bootstraps: Mapping[str, Bootstrap],
    class_names: Sequence[str],
) -> dict[str, Any]:
    mine, firsts = finished[contestant.name], finished[first.name]
    figures: dict[str, Any] = {}
    differences: dict[str, Any] = {}
    for kind, bootstrap in bootstraps.items():
        for figure in FIGURES:
            name = f"{kind}/{figure}"
            figures[name] = _figure(mine, name) | _over_images(bootstrap, contestant.name, figure)
            if contestant != first:
                differences[name] = _difference(
                    bootstrap, contestant.name, figure, _values(firsts, name), _values(mine, name)
                )
    return {
        "name": contestant.name,
        "backbone": contestant.backbone,
        "overrides": list(contestant.overrides),
        "figures": figures,
        "against_first": differences,
        "classes": {name: _class(name, mine, firsts) for name in class_names},
        "training": _training(mine),
        "runs": [_run(run) for run in mine],
    }


def _values(runs: Sequence[Finished], name: str) -> list[float]:
    """The figure of each seed where it is defined."""
    return [value for run in runs if (value := run.folder.figures.get(name)) is not None]


def _figure(runs: Sequence[Finished], name: str) -> dict[str, Any]:
    values = _values(runs, name)
    return {
        "mean": statistics.fmean(values) if values else None,
        "seeds": values,
        "seed_std": statistics.stdev(values) if len(values) > 1 else None,
        "min": min(values, default=None),
        "max": max(values, default=None),
    }


def _over_images(bootstrap: Bootstrap, contestant: str, figure: str) -> dict[str, Any]:
    interval = bootstrap.detectors[contestant][figure]
    return {"image_low": interval.low, "image_high": interval.high, "image_standard_error": interval.standard_error}


def _difference(
    bootstrap: Bootstrap, contestant: str, figure: str, first: Sequence[float], mine: Sequence[float]
) -> dict[str, Any]:
    """Against the first contestant: `low` and `high` carry images and seeds, as the verdict does."""
    difference = bootstrap.differences[contestant][figure]
    verdict = judge(difference, first, mine, images=bootstrap.images)
    return {
        "difference": difference.difference,
        "relative": difference.relative,
        "image_low": difference.low,
        "image_high": difference.high,
        "image_p": difference.p,
        "relative_image_low": difference.relative_low,
        "relative_image_high": difference.relative_high,
        "verdict": verdict.word,
        **{key: value for key, value in asdict(verdict).items() if key != "word"},
    }


def _class(name: str, mine: Sequence[Finished], firsts: Sequence[Finished]) -> dict[str, Any]:
    key = f"{HEADLINE}/{name}"
    own, first = _figure(mine, key), _figure(firsts, key)
    known = own["mean"] is not None and first["mean"] is not None
    return {**own, "difference": own["mean"] - first["mean"] if known else None}  # pyright: ignore[reportOptionalOperand]


def _training(runs: Sequence[Finished]) -> dict[str, Any]:
    """Medians over the seeds; the most memory of any."""
    speeds = [speed for run in runs if (speed := training_speed(run.folder)) is not None]
    resources = [run.folder.resources for run in runs]
    memory = [value for each in resources if (value := each.get("peak_memory_bytes")) is not None]
    return {
        "steps": runs[0].folder.config.train.steps,
        "batch_size": runs[0].folder.config.train.batch_size,
        "images_per_second": statistics.median(speeds) if speeds else None,
        "seconds_per_step": runs[0].folder.config.train.batch_size / statistics.median(speeds) if speeds else None,
        "peak_memory_bytes": max(memory, default=None),
        "devices": sorted({str(each["device"]) for each in resources if "device" in each}),
    }


def training_speed(run: RunFolder) -> float | None:
    """Median images a second; a stretch with an evaluation in it does not count where there are others."""
    clean, evaluated = [], False
    everything = [values[SPEED[0]] for _, values in run.records if values.get(SPEED[0])]
    for _, values in run.records:
        if speed := values.get(SPEED[0]):
            if not evaluated:
                clean.append(speed)
            evaluated = False
        evaluated = evaluated or HEADLINE in values
    chosen = [speed for speed in clean or everything if speed is not None]
    return statistics.median(chosen) if chosen else None


def _run(run: Finished) -> dict[str, Any]:
    curves = {name: _curve(run.folder, name) for name in ("loss", HEADLINE)}
    return {
        "name": run.plan.name,
        "seed": run.plan.seed,
        "folder": str(run.plan.folder),
        "figures": {name: value for name, value in run.folder.figures.items() if name.count("/") == 1},
        "resources": run.folder.resources,
        "curves": {name: curve for name, curve in curves.items() if curve["steps"]},
    }


def _curve(run: RunFolder, name: str) -> dict[str, list[Any]]:
    steps, values = run.series(name)
    return {"steps": steps, "values": values}


def _differing(contestants: Sequence[Contestant]) -> dict[str, dict[str, Any]]:
    """Config keys, the backbone's name apart, that are not the same for all, with each contestant's value."""
    configs = {contestant.name: flat(asdict(contestant.config)) for contestant in contestants}
    keys = dict.fromkeys(key for leaves in configs.values() for key in leaves)
    rows = {key: {name: leaves.get(key) for name, leaves in configs.items()} for key in keys}
    return {
        key: row
        for key, row in rows.items()
        if key != "model.backbone.name" and any(value != row[contestants[0].name] for value in row.values())
    }
