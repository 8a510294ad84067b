"""Detect objects in images: drawings, and predictions.json in COCO's results form.

CHECKPOINT is a run or RUN/best (its best checkpoint), RUN/last, a checkpoint's folder or a model.safetensors. A
PATH is an image, or a folder whose images are taken in the order of their names, without its subfolders.

DIR receives <name>.jpg for each image, with the boxes whose score is at least --score; predictions.json with all
detections of the model (above its own score_threshold, 0.05 unless its config says otherwise); and images.json, which
maps each image_id to its file. A folder of earlier predictions is replaced; a folder with any other content is an
error. An image that cannot be read is reported and left out, and the exit code is then 2.

  resdet predict runs/quickstart photos --output predictions
  resdet predict runs/quickstart/best a.jpg b.jpg --output predictions --score 0.3
  resdet predict runs/a photos test.refinement.nms_iou=0.3 test.voting.iou=0.5 --ensemble runs/b --output predictions
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resdet.data.images.decode import ImageError
    from resdet.predict.prediction_folder import PredictionFolder
    from resdet.predict.predictor import Predictor
    from resdet.predict.sources import Source

PLAIN_EVERY = 10.0  # seconds between lines if there is no terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a run, a checkpoint or a model file")
    parser.add_argument("inputs", nargs="+", metavar="PATH | key=value", help="images or folders, then overrides")
    parser.add_argument(
        "--ensemble", action="append", type=Path, default=[], metavar="CHECKPOINT",
        help="another model of the same classes, whose findings are joined in; may be given again",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for drawings and predictions")
    parser.add_argument("--score", type=float, default=0.5, help="smallest score of a box that is drawn (default: 0.5)")


def run(args: argparse.Namespace) -> int:
    """Predicts, draws and writes; returns the exit code. Raises UserError for a user's mistake."""
    from resdet.cli.inputs import split_inputs
    from resdet.errors import UserError
    from resdet.predict.image_list import find_images

    if not 0 <= args.score <= 1:
        raise UserError(f"--score {args.score:g} must lie between 0 and 1")
    inputs, overrides = split_inputs(args.inputs)
    paths = find_images([Path(text) for text in inputs])

    from resdet.predict.load import load
    from resdet.predict.prediction_folder import IMAGES, PREDICTIONS, PredictionFolder
    from resdet.text import printable

    detector = load(args.checkpoint, overrides=overrides, ensemble=args.ensemble)
    assert detector.origin is not None
    for line in detector.origin.remarks:
        print(printable(f"warning: {line}"))
    file, step = detector.origin.files[0], detector.origin.step
    print(printable(f"{file}: step {step}, {len(detector.class_names)} classes; images: {len(paths)}"))
    folder = PredictionFolder(
        args.output, paths, class_names=detector.class_names, category_ids=detector.category_ids, drawn_score=args.score
    )
    with folder:
        predict(detector, paths, folder)
    print(f"drawings: {printable(str(args.output))}   predictions: {PREDICTIONS}   image ids: {IMAGES}")
    if folder.skipped:
        raise UserError(
            f"{len(folder.skipped)} of {len(paths)} images could not be read and are left out (the first:"
            f" {folder.skipped[0]['file_name']}); all others are in {args.output}"
        )
    return 0


def predict(predictor: Predictor, paths: list[Path], folder: PredictionFolder) -> None:
    """Predicts all images into the folder, with a live line on a terminal and plain lines otherwise."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from resdet.text import printable

    console = Console(markup=False, highlight=False, emoji=False)
    columns = (
        TextColumn("predicting"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
    )
    start = spoke = time.perf_counter()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(paths), speed="")

        def skip(source: Source, problem: ImageError) -> None:
            assert source.path is not None
            folder.skip(source.path, problem)
            console.print(printable(f"skipped: {problem}"), soft_wrap=True)

        for prediction in predictor.stream(paths, on_error=skip):
            folder.add(prediction)
            now, done = time.perf_counter(), len(folder.images) + len(folder.skipped)
            speed = f"{done / (now - start):.3g} images/s"
            progress.update(task, completed=done, speed=speed)
            if not console.is_terminal and now - spoke > PLAIN_EVERY:
                console.print(f"{done}/{len(paths)}  {speed}")
                spoke = now
    print(
        f"images: {len(folder.images)}, objects with a score of at least {folder.drawn_score:g}: {folder.drawn},"
        f" {len(paths) / (time.perf_counter() - start):.3g} images/s"
    )
