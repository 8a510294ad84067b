"""Detect objects in images: drawings, and predictions.json in COCO's results form.

CHECKPOINT is a run or RUN/best (its best checkpoint), RUN/last, a checkpoint's folder or a model.safetensors. A
PATH is an image, an https address, a folder whose images are taken in the order of their names, a pattern such as
'photos/**/*.jpg', or - for a list of paths on the standard input, one a line.

DIR receives <name>.jpg for each image, with the boxes whose score is at least --score; predictions.json with all
detections of the model (above its own score_threshold, 0.05 unless its config says otherwise); and images.json, which
maps each image_id to its file. --csv, --json, --txt, --crops and --labels add files for the objects that are drawn. A
folder of earlier predictions is replaced; a folder with any other content is an error. An image that cannot be read is
reported and left out, and the exit code is then 2.

  resdet predict runs/quickstart photos
  resdet predict runs/quickstart a.jpg b.jpg --output found --score 0.3 --classes circle star --max 20 --csv --crops
  find photos -name '*.jpg' | resdet predict runs/quickstart - --output found
  resdet predict runs/a photos test.refinement.nms_iou=0.3 test.voting.iou=0.5 --ensemble runs/b --output found
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resdet.data.images.decode import ImageError
    from resdet.predict.prediction_folder import PredictionFolder
    from resdet.predict.predictor import Origin, Predictor
    from resdet.predict.sources import Source
    from resdet.predict.tiles import Tiling

PLAIN_EVERY = 10.0  # seconds between lines if there is no terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a run, a checkpoint or a model file")
    parser.add_argument("inputs", nargs="+", metavar="PATH | key=value", help="images or folders, then overrides")
    parser.add_argument(
        "--ensemble", action="append", type=Path, default=[], metavar="CHECKPOINT",
        help="another model of the same classes, whose findings are joined in; may be given again",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, metavar="DIR",
        help="folder for drawings and predictions (default: predictions, or predictions-2 ... if that exists)",
    )  # fmt: skip
    parser.add_argument("--score", type=float, default=0.5, help="smallest score of a box that is drawn (default: 0.5)")
    parser.add_argument("--recursive", action="store_true", help="also the images in the subfolders of folders")
    parser.add_argument("--tile", type=int, metavar="PIXELS", help="predict in square tiles, for large images")
    parser.add_argument(
        "--overlap", type=float, default=0.2, metavar="FRACTION",
        help="of a tile's side that neighbours share; best the size of the largest object (default: 0.2)",
    )  # fmt: skip
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="only objects of these classes")
    parser.add_argument("--max", type=int, metavar="N", help="only the N best objects of an image")
    parser.add_argument("--csv", action="store_true", help="objects.csv (boxes, scores, areas) and counts.csv")
    parser.add_argument("--json", action="store_true", help="json/<name>.json: the objects of each image")
    parser.add_argument("--txt", action="store_true", help="txt/<name>.txt: YOLO's lines, with the score at the end")
    parser.add_argument("--crops", action="store_true", help="crops/<name>.<n>.jpg: the part of the image in each box")
    parser.add_argument(
        "--labels", action="store_true", help="labels/<name>.png: 16 bits, the object's number by pixel"
    )


def run(args: argparse.Namespace) -> int:
    """Predicts, draws and writes; returns the exit code. Raises UserError for a user's mistake."""
    from resdet.cli.inputs import split_inputs
    from resdet.errors import UserError
    from resdet.predict.image_list import find_images

    if not 0 <= args.score <= 1:
        raise UserError(f"--score {args.score:g} must lie between 0 and 1")
    if args.max is not None and args.max < 1:
        raise UserError(f"--max {args.max} must be at least 1")
    from resdet.predict.tiles import Tiling

    tiling = None if args.tile is None else Tiling(args.tile, args.overlap)
    inputs, overrides = split_inputs(args.inputs)
    paths = find_images(with_stdin(inputs), recursive=args.recursive)

    from resdet.predict.extras import EXTRAS
    from resdet.predict.load import load
    from resdet.predict.prediction import labels_of
    from resdet.predict.prediction_folder import IMAGES, PREDICTIONS, PredictionFolder
    from resdet.text import printable

    detector = load(args.checkpoint, overrides=overrides, ensemble=args.ensemble)
    assert detector.origin is not None
    for line in detector.origin.remarks:
        print(printable(f"warning: {line}"))
    if args.classes is not None:
        _ = labels_of(args.classes, detector.class_names)
    print(printable(f"{introduction(args.checkpoint, detector.origin)}, {len(detector.class_names)} classes"))
    folder = PredictionFolder(
        args.output or free_folder(),
        paths,
        class_names=detector.class_names,
        category_ids=detector.category_ids,
        drawn_score=args.score,
        extras=[name for name in EXTRAS if getattr(args, name)],
        tables=args.csv,
    )
    with folder:
        predict(detector, paths, folder, classes=args.classes, most=args.max, tiling=tiling)
    print(f"drawings: {printable(str(folder.folder))}   predictions: {PREDICTIONS}   image ids: {IMAGES}")
    if folder.skipped:
        raise UserError(
            f"{len(folder.skipped)} of {len(paths)} images could not be read and are left out (the first:"
            f" {folder.skipped[0]['file_name']}); all others are in {folder.folder}"
        )
    return 0


def with_stdin(inputs: list[str]) -> list[str]:
    """The inputs, with the lines of the standard input in place of `-`. Raises UserError if there is no path at all."""
    from resdet.errors import UserError

    lines = [line.rstrip("\r\n") for line in sys.stdin] if "-" in inputs else []
    paths = [path for text in inputs for path in ([line for line in lines if line] if text == "-" else [text])]
    if not paths:
        raise UserError("no PATH given; give images or folders, or - for a list of paths on the standard input")
    return paths


def free_folder() -> Path:
    """`predictions`, or with the first number for which there is nothing yet."""
    folders = (Path(f"predictions{suffix}") for suffix in ("", *(f"-{number}" for number in range(2, 10_000))))
    return next(folder for folder in folders if not folder.exists())


def introduction(given: Path, origin: Origin) -> str:
    """The model file, and which checkpoint of a run it is."""
    from resdet.engine.run_folder import RunFiles

    file, which = origin.files[0], ""
    if RunFiles(given).checkpoints.is_dir():
        which = ", the best checkpoint" if RunFiles(given).best() == file.parent.name else ", the newest checkpoint"
    return f"{file}: step {origin.step}{which}"


def predict(
    predictor: Predictor,
    paths: list[Path | str],
    folder: PredictionFolder,
    *,
    classes: list[str] | None,
    most: int | None,
    tiling: Tiling | None,
) -> None:
    """Predicts all images into the folder, the chosen objects alone. On a terminal there is a live line."""
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
            folder.skip(source.name, problem)
            console.print(printable(f"skipped: {problem}"), soft_wrap=True)

        for prediction in predictor.stream(paths, tiling=tiling, on_error=skip):
            folder.add(prediction.chosen(classes=classes, most=most))
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
