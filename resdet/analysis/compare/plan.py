"""The contestants of a comparison, and the training runs of which it consists."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from resdet.config import Config, load_config
from resdet.config.diff import check_same_run, check_scored_alike
from resdet.engine.run_folder import RunFiles
from resdet.engine.task.table import task_of
from resdet.errors import UserError
from resdet.models.build.conventions import as_in


@dataclass(frozen=True)
class Contestant:
    """A backbone with overrides of its own: `resnet18` or `resnet18:model.backbone.norm=gn,optim.lr=0.01`.

    Its name is this text, or a shorter one that stands before it: `with GN=resnet18:model.backbone.norm=gn`.
    """

    name: str
    backbone: str
    overrides: tuple[str, ...]
    config: Config


@dataclass(frozen=True)
class PlannedRun:
    """One training of a contestant; `name` is also the name of its folder."""

    name: str
    contestant: str
    seed: int
    folder: Path
    config: Config


def read_contestants(
    files: Sequence[str | Path], overrides: Sequence[str], specifications: Sequence[str]
) -> list[Contestant]:
    """The contestants in the given order; each config is `files`, then `overrides`, then the contestant's own
    overrides.

    Raises UserError for one that is named twice, and for overrides that would change the images on which it is scored.
    """
    for override in overrides:
        _refuse(override, "model.backbone.name", "name the backbones with --backbones")
        _refuse(override, "train.seed", "the seeds are 0 .. K-1 of --seeds K")
    contestants = [_contestant(files, overrides, text) for text in specifications]
    for attribute in ("name", "folder"):
        counts = Counter(folder_name(c.name) if attribute == "folder" else c.name for c in contestants)
        name, count = counts.most_common(1)[0]
        if count > 1:
            raise UserError(f"--backbones: {name} takes part {count} times; give each contestant something of its own")
    first = contestants[0]
    if not task_of(first.config).has_detections:
        raise UserError(f"task={first.config.task} cannot be compared: detectors are; give a config of one")
    for contestant in contestants:
        if contestant.config.model.box_head is None:
            raise UserError(
                f"--backbones {contestant.name}: a first stage alone (model.box_head=null) has no AP to compare by; "
                "leave model.box_head=null out"
            )
    check_scored_alike([(contestant.name, contestant.config) for contestant in contestants])
    return contestants


def _contestant(files: Sequence[str | Path], overrides: Sequence[str], text: str) -> Contestant:
    head, colon, rest = text.partition(":")
    name, equals, backbone = head.rpartition("=")
    own = tuple(re.split(r",(?=[A-Za-z_][\w.]*=)", rest)) if rest else ()  # a comma inside a list does not separate
    example = "write resnet18, or with overrides of its own resnet18:model.backbone.norm=gn,optim.lr=0.01"
    if not backbone or (equals and not re.fullmatch(r"[^=.]*[^=.\s][^=.]*", name)) or (colon and not rest):
        raise UserError(f"--backbones {text}: {example}")
    for override in own:
        if not re.fullmatch(r"[A-Za-z_][\w.]*=.*", override, re.DOTALL):
            raise UserError(f"--backbones {text}: {override!r} is not key=value; {example}")
        _refuse(override, "model.backbone.name", f"the backbone is {backbone}")
        _refuse(override, "train.seed", "the seeds are 0 .. K-1 of --seeds K")
    config = load_config(*files, overrides=[*overrides, f"model.backbone.name={backbone}", *own])
    return Contestant(name.strip() or text, backbone, own, config)


def _refuse(override: str, key: str, because: str) -> None:
    if override.partition("=")[0] == key:
        raise UserError(f"{override}: leave {key} out of a comparison; {because}")


def folder_name(name: str) -> str:
    """A contestant's name as the name of a folder: letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")


def planned_runs(contestants: Sequence[Contestant], seeds: int, output: Path) -> list[PlannedRun]:
    """All contestants with seed 0, then all with seed 1, and so on: so an early report compares equal numbers
    of seeds."""
    return [
        PlannedRun(
            name := f"{folder_name(contestant.name)}-seed{seed}",
            contestant.name,
            seed,
            output / "runs" / name,
            replace(contestant.config, train=replace(contestant.config.train, seed=seed)),
        )
        for seed in range(seeds)
        for contestant in contestants
    ]


def check_unchanged(run: PlannedRun) -> None:
    """Raises UserError, naming the keys, when the run's folder holds a run with another config."""
    path = RunFiles(run.folder).config
    if path.exists():
        written = load_config(path)  # with the conventions that the planned config may leave to the weights
        check_same_run(written, replace(run.config, model=as_in(run.config.model, written.model)), run.folder)


def is_finished(run: PlannedRun) -> bool:
    """Whether the run's last evaluation and its detections are there."""
    return RunFiles(run.folder).is_finished(run.config)
