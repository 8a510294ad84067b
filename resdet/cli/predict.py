"""Detect objects in images: drawings, and predictions.json in COCO's results form.

CHECKPOINT is a run or RUN/last (its newest checkpoint), RUN/best, a checkpoint's folder or a model.safetensors. A
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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resdet.engine.saved_models import SavedModel
    from resdet.predict.prediction_folder import PredictionFolder
    from resdet.predict.predictor import Predictor

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

    from resdet.predict.prediction_folder import IMAGES, PREDICTIONS, PredictionFolder
    from resdet.text import printable

    predictor, models = load_predictor([args.checkpoint, *args.ensemble], ["train.device=auto", *overrides])
    for model in models:
        for line in model.warnings:
            print(printable(f"warning: {line}"))
    file, saved = models[0].file, models[0].saved
    print(printable(f"{file}: step {saved.step}, {len(saved.class_names)} classes; images: {len(paths)}"))
    folder = PredictionFolder(
        args.output, paths, class_names=saved.class_names, category_ids=saved.category_ids, drawn_score=args.score
    )
    with folder:
        predict(predictor, paths, folder)
    print(f"drawings: {printable(str(args.output))}   predictions: {PREDICTIONS}   image ids: {IMAGES}")
    if folder.skipped:
        raise UserError(
            f"{len(folder.skipped)} of {len(paths)} images could not be read and are left out (the first:"
            f" {folder.skipped[0]['file_name']}); all others are in {args.output}"
        )
    return 0


def load_predictor(paths: Sequence[Path], overrides: Sequence[str]) -> tuple[Predictor, list[SavedModel]]:
    """A predictor with the model of a checkpoint, or with an ensemble of several, as its config with overrides
    describes it.
    """
    from resdet.data.batches.collate import size_divisor
    from resdet.engine.distributed import World, choose_device, uses_bf16
    from resdet.engine.saved_models import detector_of, read_models
    from resdet.predict.predictor import Predictor

    models = read_models(paths, overrides)
    config = models[0].saved.config
    device = choose_device(config.train.device, World())
    predictor = Predictor(
        detector_of(models, device),
        short_side=config.data.augment.test_short_side,
        max_side=config.data.augment.max_side,
        size_divisor=size_divisor(config.model),
        batch_size=config.eval.batch_size,
        bf16=uses_bf16(config.train, device),
        channels_last=config.train.channels_last,
        sixteen_bit=config.data.sixteen_bit,
    )
    return predictor, models


def predict(predictor: Predictor, paths: list[Path], folder: PredictionFolder) -> None:
    """Predicts all images into the folder, with a live line on a terminal and plain lines otherwise."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from resdet.data.images.decode import ImageError
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
        for done, (path, prediction) in enumerate(predictor.predict_files(paths), start=1):
            if isinstance(prediction, ImageError):
                folder.skip(path, prediction)
                console.print(printable(f"skipped: {prediction}"), soft_wrap=True)
            else:
                folder.add(path, prediction)
            now = time.perf_counter()
            speed = f"{done / (now - start):.3g} images/s"
            progress.update(task, completed=done, speed=speed)
            if not console.is_terminal and now - spoke > PLAIN_EVERY:
                console.print(f"{done}/{len(paths)}  {speed}")
                spoke = now
    print(
        f"images: {len(folder.images)}, objects with a score of at least {folder.drawn_score:g}: {folder.drawn},"
        f" {len(paths) / (time.perf_counter() - start):.3g} images/s"
    )


def drawings_line(draw: Callable[[], Path]) -> str:
    """Draws; returns a line with the path of the drawings, or with the reason why there are none.

    An error in drawing does not make the command fail, because training or evaluation has already finished.
    """
    from resdet.errors import UserError

    try:
        return f"drawings: {draw()}"
    except UserError as error:
        return f"no drawings: {error}"
