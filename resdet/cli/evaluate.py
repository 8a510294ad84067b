"""Evaluate a trained detector: COCO's figures, as a table.

A checkpoint carries its config and class names, so nothing else is needed; key=value overrides change the data or
the evaluation. CHECKPOINT is a run (its newest checkpoint), a checkpoint's folder or a model.safetensors.

  resdet evaluate runs/quickstart
  resdet evaluate runs/quickstart/checkpoints/$(cat runs/quickstart/best)
  resdet evaluate runs/quickstart data.val.annotations=my.json data.val.images=photos --output runs/mine
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a run, a checkpoint or a model file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of keys of its config")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="write eval.json, predictions.json and drawings there"
    )


def run(args: argparse.Namespace) -> int:
    """Evaluates, prints and writes; returns the exit code. Raises UserError for a user's mistake."""
    from resdet.cli.predict import draw_examples
    from resdet.engine.distributed import is_lead
    from resdet.engine.evaluate_checkpoint import evaluate_checkpoint
    from resdet.engine.log import printable
    from resdet.evaluation.tables import print_figures

    metrics = evaluate_checkpoint(args.checkpoint, overrides=args.overrides, output=args.output)
    if is_lead():
        print_figures({printable(name): value for name, value in metrics.items()}, title=str(args.checkpoint))
        if args.output:
            print(f"\nwritten: {args.output}/eval.json, {args.output}/predictions.json")
            print(printable(draw_examples(args.checkpoint, args.output, overrides=args.overrides)))
    return 0
