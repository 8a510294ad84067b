"""Trains as `resdet train` does: checkpoints and figures, then drawings and the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from resdet.analysis.report import write_report
from resdet.config import Config, checked, config_from_yaml, load_config, to_yaml
from resdet.data.sets.coco import CocoDataset
from resdet.engine import train as engine
from resdet.engine.distributed import is_lead
from resdet.engine.run_folder import BEST, LAST, RunFiles
from resdet.engine.task.interface import ImageSet
from resdet.engine.task.table import task_of
from resdet.errors import UserError
from resdet.files import usable_paths
from resdet.predict.gallery import draw_run
from resdet.predict.load import load
from resdet.predict.predictor import Predictor
from resdet.workflows.figures import WithFigures, attempt

ConfigLike = Config | str | Path | Sequence[str | Path]


@dataclass(frozen=True, eq=False)
class TrainedRun(WithFigures):
    """A finished training: its folder, the figures of its last evaluation and the config that was trained.

    `drawings` is the sheet of pictures and `report` the page, None where they were not written; `remarks` say why not.
    """

    folder: Path
    figures: dict[str, float | None]
    config: Config
    drawings: Path | None = None
    report: Path | None = None
    remarks: tuple[str, ...] = ()
    val_set: ImageSet | None = None  # the images of the last evaluation, if they are open

    @property
    def checkpoint(self) -> Path:
        """RUN/best, or RUN/last if no evaluation had a figure to choose by."""
        return self.folder / (LAST if RunFiles(self.folder).best() is None else BEST)

    def load(self, *, overrides: Sequence[str] = (), device: str | None = None) -> Predictor:
        """The trained detector (see `resdet.load`)."""
        return load(self.checkpoint, overrides=overrides, device=device)

    def __repr__(self) -> str:
        return f"<TrainedRun {self.folder}, {task_of(self.config).headline} {_shown(self)}>"


@usable_paths()
def train(
    config: ConfigLike,
    output: str | Path,
    *,
    overrides: Sequence[str] = (),
    resume: bool | str | Path = False,
    dry_run: bool = False,
    pictures: bool = True,
) -> TrainedRun:
    """Trains into the folder `output`, evaluates, draws and writes the report.

    `config` is a Config, the name of a config that comes with resdet (`"quickstart"`), a YAML file, or a list of them,
    merged from left to right; `overrides` are key=value. `resume` continues the run in `output` from its newest
    checkpoint, or from the one given. `dry_run` makes a few steps and writes nothing. `pictures=False` leaves out
    drawings and report.

    Raises UserError for a mistake in config, data or folder, and Stopped (a KeyboardInterrupt) if a signal ended the
    run, after saving.
    """
    chosen, folder = read_config(config, overrides), Path(output)
    trained = engine.train_run(chosen, folder, resume=resume, dry_run=dry_run)
    run = TrainedRun(folder, trained.figures, chosen, val_set=trained.val_set)
    return with_pictures(run) if pictures and not dry_run and is_lead() else run


def with_pictures(run: TrainedRun) -> TrainedRun:
    """The run with its drawings, if it has detections, and its report."""
    drawings, remarks = None, ()
    dataset = run.val_set if isinstance(run.val_set, CocoDataset) else None
    if task_of(run.config).has_detections:
        drawings, remarks = attempt(partial(draw_run, run.folder, dataset), "no drawings: {error}")
    failed = f"warning: no report: {{error}}; resdet report {_braced(run.folder)} tries again"
    report, more = attempt(partial(write_report, run.folder, dataset=dataset), failed)
    return replace(run, drawings=drawings, report=report, remarks=(*remarks, *more))


def read_config(config: ConfigLike, overrides: Sequence[str] = ()) -> Config:
    """The config that a Config, a name, a file or a list of them describes, with `key=value` overrides."""
    if isinstance(overrides, str):
        raise UserError(f"overrides={overrides!r} is one text; give a list, [{overrides!r}]")
    if isinstance(config, Config):
        return config_from_yaml(to_yaml(checked(config)), "the config", overrides)
    files = [config] if isinstance(config, str | Path) else config
    return load_config(*files, overrides=overrides)


def _braced(folder: Path) -> str:
    return str(folder).replace("{", "{{").replace("}", "}}")


def _shown(run: TrainedRun) -> str:
    value = run.figures.get(task_of(run.config).headline)
    return "undefined" if value is None else f"{value:.3f}"
