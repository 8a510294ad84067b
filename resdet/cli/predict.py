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
  resdet predict runs/quickstart photos --output found --engine ray
  find photos -name '*.jpg' | resdet predict runs/quickstart - --output found
  resdet predict runs/a photos test.refinement.nms_iou=0.3 test.voting.iou=0.5 --ensemble runs/b --output found
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from resdet.cli.engines import add_engine
from resdet.cli.inputs import CHECKPOINT

PLAIN_EVERY = 10.0  # seconds between lines if there is no terminal
ALSO = ("csv", "json", "txt", "crops", "labels")  # options that add files


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
    add_engine(parser)
    parser.add_argument(
        "--parts", type=int, metavar="N", help="parts for the nodes of --engine ray (default: as many as have room)"
    )
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
    from resdet.engine.distributed import MISTAKE, is_lead
    from resdet.errors import UserError
    from resdet.predict.tiles import Tiling
    from resdet.predict.video import Camera
    from resdet.workflows.predict import predict_folder

    if args.frames is not None and args.camera is None:
        raise UserError("--frames is for a camera; give --camera N, or --every N for a video")
    inputs, overrides = split_inputs(args.inputs)
    camera = [] if args.camera is None else [Camera(args.camera, args.frames)]
    with Shown() as shown:
        done = predict_folder(
            args.checkpoint,
            [*with_stdin(inputs), *camera],
            args.output,
            overrides=overrides,
            ensemble=args.ensemble,
            recursive=args.recursive,
            every=args.every,
            score=args.score,
            tiling=None if args.tile is None else Tiling(args.tile, args.overlap),
            classes=args.classes,
            most=args.max,
            colors=args.colors,
            also=[name for name in ALSO if getattr(args, name)],
            engine=args.engine,
            address=args.address,
            parts=args.parts,
            say=shown.say,
            progress=shown.progress,
        )
    if not done.skipped:
        return 0
    if not is_lead():
        return MISTAKE
    raise UserError(
        f"{len(done.skipped)} of {done.given} images could not be read and are left out (the first:"
        f" {done.skipped[0]['file_name']}); all others are in {done.folder}"
    )


def with_stdin(inputs: list[str]) -> list[str]:
    """The inputs, with the lines of the standard input in place of `-`."""
    lines = [line.rstrip("\r\n") for line in sys.stdin] if "-" in inputs else []
    return [path for text in inputs for path in ([line for line in lines if line] if text == "-" else [text])]


class Shown:
    """Lines, and the progress: on a terminal a live line below them, otherwise a line from time to time."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self.console = Console(markup=False, highlight=False, emoji=False)
        self.bar = Progress(
            TextColumn("predicting"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("", speed="")
        self.spoke = time.perf_counter()

    def __enter__(self) -> Shown:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def say(self, line: str) -> None:
        """Prints a line, above the live one."""
        self.console.print(line, soft_wrap=True)

    def progress(self, done: int, total: int | None, speed: float) -> None:
        """The images so far, of how many (None: not known), and the images a second."""
        if done == 0:
            self.bar.start()
            self.spoke = time.perf_counter()
        said = f"{speed:.3g} images/s"
        self.bar.update(self.task, completed=done, total=total, speed=said)
        if not self.console.is_terminal and time.perf_counter() - self.spoke > PLAIN_EVERY:
            self.console.print(f"{done}{'' if total is None else f'/{total}'}  {said}")
            self.spoke = time.perf_counter()
