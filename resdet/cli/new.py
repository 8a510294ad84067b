"""Write a config that fits a data set and this machine, with the reason for each line.

FOLDER is a data set of a format that is recognized by its layout, such as COCO's, YOLO's or VOC's (docs/formats.md).
Short side, anchors, detections and length follow from what is measured on the training split, the rest from the
machine. The file is a start, to be read and changed.

  resdet new mine.yaml --data datasets/mine
  resdet train mine.yaml --output runs/mine
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("config", type=Path, metavar="FILE.yaml", help="the file to write, which must not exist")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="the folder of the data set")
    parser.add_argument(
        "--format",
        default="auto",
        metavar="F",
        help="the format of FOLDER if it may be several: coco, yolo, voc, ... (default: by its layout)",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="what it will be trained on (default: this machine)",
    )


def run(args: argparse.Namespace) -> int:
    """Measures and writes; returns the exit code. Raises UserError for a user's mistake."""
    import os

    from resdet.errors import UserError

    if args.config.suffix not in (".yaml", ".yml"):
        raise UserError(f"{args.config}: give a name that ends in .yaml")
    if os.path.lexists(args.config):
        raise UserError(f"{args.config}: exists already; give another name, or delete it first")
    from resdet.files import replace_file, writing
    from resdet.text import printable
    from resdet.workflows.fitted_config import fitted_config

    text = fitted_config(args.data, device=args.device, format=args.format)
    with writing(args.config, "give another FILE.yaml"):
        replace_file(args.config, text.encode())
    print(text, end="")
    print(printable(f"wrote {args.config}; next: resdet train {args.config} --output runs/{args.config.stem}"))
    return 0
