"""Evaluate a trained detector: COCO's figures, as a table.

A checkpoint carries its config and class names, so nothing else is needed; key=value overrides change the data or the
evaluation. CHECKPOINT is a run or RUN/last (its newest checkpoint), RUN/best, a checkpoint's folder or a
model.safetensors. Several of them, of the same classes, are evaluated as an ensemble, with the data of the first.

  resdet evaluate runs/quickstart
  resdet evaluate runs/quickstart/best
  resdet evaluate runs/quickstart data.val.annotations=my.json data.val.images=photos --output runs/mine
  resdet evaluate runs/a runs/b test.refinement.nms_iou=0.3 test.voting.iou=0.5 test.augmentation.flip=true
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="CHECKPOINT | key=value",
        help="runs, checkpoints or model files, then changes of keys of the config",
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="write eval.json, predictions.json and drawings there"
    )


def run(args: argparse.Namespace) -> int:
    """Evaluates, prints and writes; returns the exit code. Raises UserError for a user's mistake."""
    from resdet.cli.inputs import split_inputs
    from resdet.cli.tables import print_figures
    from resdet.engine.distributed import is_lead
    from resdet.errors import UserError
    from resdet.text import printable
    from resdet.workflows.evaluate import evaluate

    paths, overrides = split_inputs(args.inputs)
    if not paths:
        raise UserError("no CHECKPOINT given; name a run, such as runs/quickstart")
    done = evaluate(paths[0], ensemble=paths[1:], overrides=overrides, output=args.output)
    if is_lead():
        print_figures({printable(name): value for name, value in done.figures.items()}, title=" + ".join(paths))
        if done.output:
            print(printable(f"\nwritten: {done.output}"))
        for line in (*([f"drawings: {done.drawings}"] if done.drawings else []), *done.remarks):
            print(printable(line))
    return 0
