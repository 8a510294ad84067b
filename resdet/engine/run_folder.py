"""Names, writes and reads all files in a run's folder. These names are defined nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from resdet.config import Config, config_from_yaml, to_yaml
from resdet.engine.run_records import (
    Figures,
    finite,
    last_evaluation,
    number,
    object_of,
    records_of,
    step_of,
    text_of,
    texts_by_id,
)
from resdet.errors import UserError
from resdet.files import (
    ANOTHER_OUTPUT,
    leftovers,
    read_regular,
    readable_json,
    replace_file,
    write_files,
    writing,
)
from resdet.folder_lock import LOCK
from resdet.outputs import check_output, signed

if TYPE_CHECKING:
    from resdet.coco.results import CocoResults

CONFIG = "config.yaml"  # the complete config with every key
METRICS = "metrics.jsonl"  # one object a line: step, name -> float
LOG = "log.txt"
FIGURES = "eval.json"  # of the last evaluation
PREDICTIONS = "predictions.json"  # the detections of the last evaluation, in COCO's results form
DATA = "data_report.json"  # the reports of reading the data, by split
RESOURCES = "resources.json"  # memory, seconds and device of the training
BAD_STEP = "bad_step.json"  # what is known about a step whose loss or gradient was not finite
BAD_BATCH = "bad_step_rank{rank}.pt"  # the share of its batch that a process had
TRACE = "trace.json"  # of a profiler
REPORT = "report.html"
DRAWINGS = "drawings"
CHECKPOINTS = "checkpoints"
BEST = "best"  # text: the name of a checkpoint's folder
LAST = "last"  # not a file: RUN/last refers to the newest checkpoint, as RUN/best refers to the best
MODEL, STATE, MANIFEST = "model.safetensors", "state.pt", "manifest.json"  # in a checkpoint's folder

UNREADABLE = "unreadable"  # in FIGURES: the problem of each image that could not be read, by its id

ENDED = "ended"  # in FIGURES: the key that ended the training, where that is not train.steps

LARGEST_NAME = 1000  # bytes of `best`


@dataclass(frozen=True)
class RunFiles:
    """The paths of the files of the run in `folder`, which need not exist, and the functions that write them."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / CONFIG

    @property
    def metrics(self) -> Path:
        return self.folder / METRICS

    @property
    def log(self) -> Path:
        return self.folder / LOG

    @property
    def figures(self) -> Path:
        return self.folder / FIGURES

    @property
    def predictions(self) -> Path:
        return self.folder / PREDICTIONS

    @property
    def resources(self) -> Path:
        return self.folder / RESOURCES

    @property
    def bad_step(self) -> Path:
        return self.folder / BAD_STEP

    @property
    def trace(self) -> Path:
        return self.folder / TRACE

    @property
    def report(self) -> Path:
        return self.folder / REPORT

    @property
    def drawings(self) -> Path:
        return self.folder / DRAWINGS

    @property
    def checkpoints(self) -> Path:
        return self.folder / CHECKPOINTS

    @property
    def hold_a_run(self) -> bool:
        """Whether a training began in the folder: it writes the config first, into a locked folder."""
        return self.config.exists() and ((self.folder / LOCK).exists() or self.metrics.exists())

    def foreign(self) -> list[str]:
        """The names in a folder that is not a run, except the temporary files of a run's first file."""
        if not self.folder.is_dir() or self.hold_a_run:
            return []
        ours = {LOCK, *(path.name for path in leftovers(self.config))}
        return sorted(path.name for path in self.folder.iterdir() if path.name not in ours)

    def begin(self, config: Config, reports: Mapping[str, dict[str, Any]], step: int) -> None:
        """Creates the folder with the config and the reports on the data by split; removes metrics after `step`.

        Raises UserError where the folder cannot be written.
        """
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_file(self.config, to_yaml(config).encode())
            replace_file(self.folder / DATA, readable_json(dict(reports)))
            self.forget_after(step)

    def record(self, config: Config) -> None:
        """Writes a config in which something was decided. Raises UserError where the folder cannot be written."""
        with writing(self.folder):
            replace_file(self.config, to_yaml(config).encode())

    def forget_after(self, step: int) -> None:
        """Removes the lines of metrics after the step from which a run resumes, because they will be written again."""
        if self.metrics.exists():
            text = read_regular(self.metrics).decode(errors="replace")  # a damaged line has no step
            kept = [line for line in text.splitlines() if step_of(line) <= step]
            replace_file(self.metrics, "".join(f"{line}\n" for line in kept).encode())

    def check_evaluation(self) -> None:
        """Raises UserError for a folder with figures or detections that resdet did not write: they stay as they are."""
        if self.hold_a_run:
            return
        check_output(self.figures)
        if self.predictions.exists() and not self.figures.exists():  # COCO's results have no place for a mark
            raise UserError(
                f"{self.predictions}: exists, and the folder has no {FIGURES} of resdet; {ANOTHER_OUTPUT}, or delete "
                "the file first"
            )

    def write_evaluation(
        self,
        figures: Figures,
        *,
        step: int,
        backend: str | None = None,
        results: CocoResults | None = None,
        ended: str | None = None,
    ) -> None:
        """Writes an evaluation's figures, and its detections, if there are any; creates the folder.

        `backend` is the evaluator that scored the detections; `ended` is the key that ended the training at this step,
        where that is not train.steps of the config that a user gave. Raises UserError if the folder cannot be written.
        """
        named: dict[str, Any] = {} if backend is None else {"backend": backend}
        if ended is not None:
            named[ENDED] = ended
        defined = {name: number(value) for name, value in figures.items()}
        if results is not None and results.unreadable:
            named[UNREADABLE] = {str(number): problem for number, problem in results.unreadable.items()}
        contents = {FIGURES: readable_json(signed({**defined, **named, "step": step}))}
        if results is not None:
            contents[PREDICTIONS] = msgspec.json.encode(results.to_json())
        write_files(self.folder, contents)

    def written_figures(self) -> Figures:
        """The figures of the last evaluation. Raises UserError if they cannot be read."""
        notes: list[str] = []
        figures = finite(object_of(self.figures, notes))
        _ = figures.pop("step", None)
        if not figures:
            raise UserError(
                f"{self.figures}: {notes[0] if notes else 'has no figures'}; resdet evaluate writes it anew"
            )
        return figures

    def is_finished(self, config: Config) -> bool:
        """Whether the evaluation after the last step and its detections exist."""
        written = object_of(self.figures, [])
        return self.predictions.exists() and (written.get("step") == config.train.steps or ENDED in written)

    def write_bad_step(self, content: Mapping[str, Any]) -> None:
        """Writes the information about a step whose loss or gradient was not finite. Raises OSError."""
        replace_file(self.bad_step, readable_json(dict(content)))

    def write_bad_batch(self, rank: int, data: bytes) -> None:
        """Writes a process's share of the batch of such a step. Raises OSError."""
        replace_file(self.folder / BAD_BATCH.format(rank=rank), data)

    def write_unreadable(self, problems: Sequence[str]) -> None:
        """Adds images that were left out in training to the report on the data. Raises OSError."""
        report = object_of(self.folder / DATA, [])
        replace_file(self.folder / DATA, readable_json({**report, "unreadable": list(problems)}))

    def write_best(self, checkpoint: Path) -> None:
        """Writes the name of the checkpoint with the highest metric so far. Raises OSError."""
        replace_file(self.folder / BEST, f"{checkpoint.name}\n".encode())

    def best(self) -> str | None:
        """The name of the folder of the checkpoint with the highest metric so far. Raises UserError for a file that
        cannot be read.
        """
        try:
            return read_regular(self.folder / BEST, largest=LARGEST_NAME).decode(errors="replace").strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"{self.folder / BEST}: cannot be read ({error.strerror}); remove it") from None

    def number_on(self, board: str, *, otherwise: str) -> str:
        """The number of this run on another board of figures; `otherwise`, which is written, if it has none yet."""
        path = self.folder / f".{board}_run"  # W&B would take a file .wandb for its folder
        try:
            return read_regular(path, largest=LARGEST_NAME).decode(errors="replace").strip()
        except FileNotFoundError:
            with writing(self.folder):
                replace_file(path, f"{otherwise}\n".encode())
            return otherwise

    def write_resources(self, content: Mapping[str, Any]) -> None:
        """Writes the resources that the training took. Raises OSError."""
        replace_file(self.resources, readable_json(dict(content)))

    def written_resources(self) -> dict[str, Any]:
        """The resources that the training took so far; empty before its first checkpoint."""
        return object_of(self.resources, [])


@dataclass(frozen=True)
class RunFolder:
    """The content of a run's folder. `records` are the lines of the metrics in the order of their steps; `figures` are
    the figures of the last evaluation, empty before the first; `notes` are messages about files that could not be read.
    """

    path: Path
    config: Config
    config_text: str
    records: list[tuple[float, Figures]]
    figures: Figures
    step: int | None
    backend: str | None
    data: dict[str, dict[str, Any]]
    notes: list[str]
    unreadable: dict[int, str] = field(default_factory=dict)
    resources: dict[str, Any] = field(default_factory=dict)
    ended: str | None = None  # the key with its value that ended the training, where that is not train.steps

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def predictions(self) -> Path | None:
        """The path of the detections of the last evaluation, a COCO results file."""
        path = RunFiles(self.path).predictions
        return path if path.is_file() else None

    def series(self, name: str) -> tuple[list[float], list[float | None]]:
        """The steps at which a figure was written, and its values."""
        found = [(step, values[name]) for step, values in self.records if name in values]
        return [step for step, _ in found], [value for _, value in found]


def read_run(path: Path) -> RunFolder:
    """Reads the folder that `resdet train` wrote. Raises UserError for a folder without a config or without metrics."""
    for name in (CONFIG, METRICS):
        if not (path / name).is_file():
            raise UserError(f"{path}: is no run folder, for it has no {name}; give the --output of resdet train")
    notes: list[str] = []
    config_text = text_of(path / CONFIG)
    records = records_of(path / METRICS, notes)
    written = object_of(path / FIGURES, notes)
    figures, backend = finite(written), written.get("backend")
    step = figures.pop("step", None)
    if not figures:
        step, figures = last_evaluation(records)
    data = object_of(path / DATA, notes)
    return RunFolder(
        path=path,
        config=config_from_yaml(config_text, str(path / CONFIG)),
        config_text=config_text,
        records=records,
        figures=figures,
        step=None if step is None else int(step),
        backend=backend if isinstance(backend, str) else None,
        data={name: report for name, report in data.items() if isinstance(report, dict)},
        notes=notes,
        unreadable=texts_by_id(written.get(UNREADABLE)),
        resources=object_of(path / RESOURCES, notes),
        ended=ended if isinstance(ended := written.get(ENDED), str) else None,
    )
