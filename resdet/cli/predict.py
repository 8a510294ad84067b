"""Detect objects in images and videos: drawings, and predictions.json in COCO's results form.

CHECKPOINT is a run or RUN/best (its best checkpoint), RUN/last, a checkpoint's folder or a model.safetensors. A
PATH is an image, a video, an https address of an image, a folder whose images are taken in the order of their names, a
pattern such as 'photos/**/*.jpg' or 'clips/*.mp4', or - for a list of paths on the standard input, one a line.

DIR receives <name>.jpg for each image and <name>.webm for each video, with the boxes whose score is at least --score;
predictions.json with all detections of the model (above its own score_threshold, 0.05 unless its config says
otherwise); and images.json, which maps each image_id to its file and frame. --csv, --json, --txt, --crops and --labels
add files for the objects that are drawn. A folder of earlier predictions is replaced; a folder with any other content
is an error. An image that cannot be read is reported and left out, and the exit code is then 2. Under torchrun each
process takes its share of the images and videos, and the result is one folder.

  resdet predict runs/quickstart photos
  resdet predict runs/quickstart a.jpg b.jpg --output found --score 0.3 --classes circle star --max 20 --csv --crops
  resdet predict runs/quickstart clip.mp4 --every 5 --output found
  resdet predict runs/quickstart --camera 0 --frames 100 --output found
  find photos -name '*.jpg' | resdet predict runs/quickstart - --output found
  resdet predict runs/a photos test.refinement.nms_iou=0.3 test.voting.iou=0.5 --ensemble runs/b --output found
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resdet.cli.inputs import CHECKPOINT

if TYPE_CHECKING:
    from resdet.data.images.decode import ImageError
    from resdet.engine.distributed import World
    from resdet.errors import UserError
    from resdet.predict.prediction_folder import PredictionFolder
    from resdet.predict.predictor import Origin, Predictor
    from resdet.predict.sources import Source
    from resdet.predict.tiles import Tiling
    from resdet.predict.video import Clip

PLAIN_EVERY = 10.0  # seconds between lines if there is no terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help=CHECKPOINT)
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="PATH | key=value",
        help="images, videos or folders, then changes of keys of the config",
    )
    parser.add_argument(
        "--ensemble", action="append", type=Path, default=[], metavar="CHECKPOINT",
        help="another model of the same classes, whose findings are joined in; may be given again",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, metavar="DIR",
        help="folder for drawings and predictions (default: predictions, or predictions-2 ... if that exists)",
    )  # fmt: skip
    parser.add_argument(
        "--score", type=float, default=0.5, metavar="S", help="smallest score of a box that is drawn (default: 0.5)"
    )
    parser.add_argument("--recursive", action="store_true", help="also the images in the subfolders of folders")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="each N-th frame of videos (default: all)")
    parser.add_argument("--camera", type=int, metavar="N", help="the camera of this number, until Ctrl-C or --frames")
    parser.add_argument("--frames", type=int, metavar="N", help="how many images --camera takes")
    parser.add_argument(
        "--tile", type=int, metavar="PIXELS", help="predict in square tiles of this side, for large images"
    )
    parser.add_argument(
        "--overlap", type=float, default=0.2, metavar="FRACTION",
        help="the part of a tile's side that neighbours share; best the size of the largest object (default: 0.2)",
    )  # fmt: skip
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="only objects of these classes")
    parser.add_argument("--max", type=int, metavar="N", help="only the N best objects of an image")
    parser.add_argument(
        "--colors", choices=("class", "object"), default="class",
        help="what has a colour of its own in drawings: a class, or each object (default: class)",
    )  # fmt: skip
    parser.add_argument("--csv", action="store_true", help="objects.csv (boxes, scores, areas) and counts.csv")
    parser.add_argument("--json", action="store_true", help="json/<name>.json: the objects of each image")
    parser.add_argument("--txt", action="store_true", help="txt/<name>.txt: YOLO's lines, with the score at the end")
    parser.add_argument("--crops", action="store_true", help="crops/<name>.<n>.jpg: the part of the image in each box")
    parser.add_argument(
        "--labels", action="store_true", help="labels/<name>.png: for each pixel the number of its object, in 16 bits"
    )


def run(args: argparse.Namespace) -> int:
    """Predicts, draws and writes; returns the exit code. Raises UserError for a user's mistake."""
    from resdet.cli.inputs import split_inputs
    from resdet.errors import UserError

    if not 0 <= args.score <= 1:
        raise UserError(f"--score {args.score:g} must lie between 0 and 1")
    if args.max is not None and args.max < 1:
        raise UserError(f"--max {args.max} must be at least 1")
    if args.frames is not None and args.camera is None:
        raise UserError("--frames is for a camera; give --camera N, or --every N for a video")
    inputs, overrides = split_inputs(args.inputs)
    given = what_is_given(args, inputs)
    if args.output is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("--output DIR is missing: processes of torchrun need one that all of them know")

    from resdet.engine.distributed import join_world

    said = [text.partition("=")[2] for text in overrides if text.startswith("train.device=")]
    with join_world(said[-1] if said else "auto") as world:
        return predict_all(args, given, overrides, world)


def predict_all(args: argparse.Namespace, given: list[Path | str | Clip], overrides: list[str], world: World) -> int:
    """Loads the detector and predicts the share of this process; the first process says what was done."""
    from resdet.drawing.fonts import without_font
    from resdet.predict.extras import EXTRAS
    from resdet.predict.load import load
    from resdet.predict.prediction import labels_of
    from resdet.predict.prediction_folder import IMAGES, PREDICTIONS, PredictionFolder
    from resdet.predict.shared_folder import part_of
    from resdet.predict.tiles import Tiling
    from resdet.text import printable

    tiling = None if args.tile is None else Tiling(args.tile, args.overlap)
    detector = load(args.checkpoint, overrides=overrides, ensemble=args.ensemble, world=world)
    assert detector.origin is not None
    if args.classes is not None:
        _ = labels_of(args.classes, detector.class_names)
    if world.leads:
        for line in filter(None, (*detector.origin.remarks, without_font(detector.class_names))):
            print(printable(f"warning: {line}"))
        print(printable(f"{introduction(args.checkpoint, detector.origin)}, {len(detector.class_names)} classes"))
    output = args.output or free_folder()
    check_share(output, world)
    folder = PredictionFolder(
        output if world.size == 1 else part_of(output, world.rank),
        given,
        class_names=detector.class_names,
        category_ids=detector.category_ids,
        drawn_score=args.score,
        colors=args.colors,
        extras=[name for name in EXTRAS if getattr(args, name)],
        tables=args.csv,
    )
    with folder:
        share = given[world.rank :: world.size]
        predict(detector, share, folder, world, classes=args.classes, most=args.max, tiling=tiling)
    skipped = folder.skipped if world.size == 1 else joined(output, world)
    if world.leads:
        print(f"drawings: {printable(str(output))}   predictions: {PREDICTIONS}   image ids: {IMAGES}")
    world.raise_together(problem_of(skipped, len(given), output))
    return 0


def problem_of(skipped: list[dict[str, Any]], count: int, output: Path) -> UserError | None:
    """What is said at the end if images could not be read."""
    from resdet.errors import UserError

    if not skipped:
        return None
    return UserError(
        f"{len(skipped)} of {count} images could not be read and are left out (the first:"
        f" {skipped[0]['file_name']}); all others are in {output}"
    )


def check_share(output: Path, world: World) -> None:
    """Raises UserError, before anything is predicted, if the folder that is joined at the end holds something else."""
    from resdet.errors import UserError
    from resdet.predict.prediction_folder import check_folder

    problem = None
    if world.size > 1 and world.leads:
        try:
            check_folder(output)
        except UserError as error:
            problem = error
    world.raise_together(problem)


def joined(output: Path, world: World) -> list[dict[str, Any]]:
    """The parts of all processes in one folder, when all are done; the images that were skipped."""
    from resdet.errors import UserError
    from resdet.predict.shared_folder import join_parts

    _ = world.any(flag=False)  # waits for all
    skipped: list[dict[str, Any]] = []
    problem = None
    if world.leads:
        try:
            skipped = join_parts(output, world.size)
        except UserError as error:
            problem = error
    world.raise_together(problem)
    return skipped


def what_is_given(args: argparse.Namespace, inputs: list[str]) -> list[Path | str | Clip]:
    """Files, addresses, videos and the camera. Raises UserError for what does not exist, and if there is nothing."""
    from resdet.errors import UserError
    from resdet.predict.image_list import find_images
    from resdet.predict.video import Camera, Video, is_video

    paths = find_images(with_stdin(inputs), recursive=args.recursive)
    given: list[Path | str | Clip] = [
        Video(path, args.every) if isinstance(path, Path) and is_video(path) else path for path in paths
    ]
    if args.camera is not None:
        given.append(Camera(args.camera, args.frames))
    if not given:
        raise UserError("no PATH given; give images, videos or folders, or - for a list of paths on the standard input")
    return given


def with_stdin(inputs: list[str]) -> list[str]:
    """The inputs, with the lines of the standard input in place of `-`."""
    lines = [line.rstrip("\r\n") for line in sys.stdin] if "-" in inputs else []
    return [path for text in inputs for path in ([line for line in lines if line] if text == "-" else [text])]


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
    given: list[Path | str | Clip],
    folder: PredictionFolder,
    world: World,
    *,
    classes: list[str] | None,
    most: int | None,
    tiling: Tiling | None,
) -> None:
    """Predicts all images into the folder, the chosen objects alone. On a terminal there is a live line."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from resdet.predict.video import Clip
    from resdet.text import printable

    console = Console(markup=False, highlight=False, emoji=False)
    columns = (
        TextColumn("predicting"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
    )
    total = None if any(isinstance(each, Clip) for each in given) else len(given)
    live = console.is_terminal and world.leads
    start = spoke = time.perf_counter()
    with Progress(*columns, console=console, transient=True, disable=not live) as progress:
        task = progress.add_task("", total=total, speed="")

        def skip(source: Source, problem: ImageError) -> None:
            folder.skip(source.given, problem)
            console.print(printable(f"skipped: {problem}"), soft_wrap=True)

        for prediction in predictor.stream(given, tiling=tiling, on_error=skip):
            folder.add(prediction.chosen(classes=classes, most=most))
            if (note := prediction.source.note()) is not None:
                console.print(printable(f"note: {note}"), soft_wrap=True)
            now, done = time.perf_counter(), len(folder.images) + len(folder.skipped)
            speed = f"{done / (now - start):.3g} images/s"
            progress.update(task, completed=done, speed=speed)
            if not live and world.leads and now - spoke > PLAIN_EVERY:
                console.print(f"{done}{'' if total is None else f'/{total}'}  {speed}")
                spoke = now
    seconds = time.perf_counter() - start
    counts = world.gather((len(folder.images), folder.drawn, len(folder.images) + len(folder.skipped)))
    images, drawn, done = (sum(each) for each in zip(*counts, strict=True))
    if world.leads:
        print(
            f"images: {images}, objects with a score of at least {folder.drawn_score:g}: {drawn},"
            f" {done / seconds:.3g} images/s"
        )
