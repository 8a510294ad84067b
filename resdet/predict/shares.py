"""The share of one process in a prediction: its detector, and a folder with what it finds in its images."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resdet.data.images.decode import ImageError
from resdet.drawing.fonts import without_font
from resdet.engine.distributed import World
from resdet.engine.run_folder import RunFiles
from resdet.predict.extras import EXTRAS
from resdet.predict.load import load
from resdet.predict.prediction import Colors, labels_of
from resdet.predict.prediction_folder import PredictionFolder
from resdet.predict.predictor import Predictor
from resdet.predict.sources import Source
from resdet.predict.tiles import Tiling
from resdet.predict.video import Clip
from resdet.text import printable

CSV = "csv"  # objects.csv and counts.csv, beside the rows of EXTRAS

Given = Path | str | Clip


@dataclass(frozen=True)
class Order:
    """What is predicted, and how; the same for all processes."""

    checkpoint: str | Path
    given: Sequence[Given]
    output: Path | None
    overrides: Sequence[str]
    ensemble: Sequence[str | Path]
    score: float
    tiling: Tiling | None
    classes: Sequence[str] | None
    most: int | None
    colors: Colors
    also: Sequence[str]


@dataclass(frozen=True)
class Share:
    """What one process has predicted."""

    images: int
    drawn: int
    seconds: float
    skipped: list[dict[str, Any]]

    @property
    def done(self) -> int:
        """The images that were read or skipped."""
        return self.images + len(self.skipped)


@dataclass(frozen=True)
class Voice:
    """Where the lines go, and the counts: after each image the number so far, of how many, and the images a second."""

    say: Callable[[str], None]
    progress: Callable[[int, int | None, float], None]


def no_progress(done: int, total: int | None, speed: float) -> None:
    """Shows nothing."""


def load_detector(order: Order, world: World) -> Predictor:
    """The detector on the device of this process. Raises UserError for classes that it does not have."""
    detector = load(order.checkpoint, overrides=order.overrides, ensemble=order.ensemble, world=world)
    if order.classes is not None:
        _ = labels_of(order.classes, detector.class_names)
    return detector


def introduction(order: Order, detector: Predictor) -> list[str]:
    """Warnings, then the model file, and which checkpoint of a run it is."""
    origin = detector.origin
    assert origin is not None
    file, which, run = origin.files[0], "", RunFiles(Path(order.checkpoint))
    if run.checkpoints.is_dir():
        which = ", the best checkpoint" if run.best() == file.parent.name else ", the newest checkpoint"
    warnings = filter(None, (*origin.remarks, without_font(detector.class_names)))
    model = f"{file}: step {origin.step}{which}, {len(detector.class_names)} classes"
    return [printable(line) for line in (*(f"warning: {line}" for line in warnings), model)]


def predict_share(order: Order, detector: Predictor, output: Path, share: Sequence[Given], voice: Voice) -> Share:
    """Predicts a share of the images into a folder, the chosen objects alone."""
    total = None if any(isinstance(each, Clip) for each in share) else len(share)
    folder = PredictionFolder(
        output,
        order.given,
        class_names=detector.class_names,
        category_ids=detector.category_ids,
        drawn_score=order.score,
        colors=order.colors,
        extras=[name for name in EXTRAS if name in order.also],
        tables=CSV in order.also,
    )

    def skip(source: Source, problem: ImageError) -> None:
        folder.skip(source.given, problem)
        voice.say(printable(f"skipped: {problem}"))

    with folder:
        start = time.perf_counter()
        voice.progress(0, total, 0.0)
        for prediction in detector.stream(share, tiling=order.tiling, on_error=skip):
            folder.add(prediction.chosen(classes=order.classes, most=order.most))
            if (note := prediction.source.note()) is not None:
                voice.say(printable(f"note: {note}"))
            done = len(folder.images) + len(folder.skipped)
            voice.progress(done, total, done / (time.perf_counter() - start))
        seconds = time.perf_counter() - start
    return Share(len(folder.images), folder.drawn, seconds, folder.skipped)
