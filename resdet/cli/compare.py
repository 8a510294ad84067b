"""Train backbones against one another, several seeds each, and say which is better, by how much and at what cost.

A comparison is a folder: runs/<backbone>-seed<k>/ are training runs of `resdet train`, compare.json and compare.html
contain the results. Finished runs are reused and interrupted runs are continued, so the same command can be given again
after a stop, with more backbones or with more seeds. Ctrl-C, SIGTERM and SIGUSR1 save all runs (143).

All other backbones are compared with the first one. A difference is called significant only where its 95 % interval,
over the images (paired bootstrap) and over the seeds (Welch's t) together, excludes 0.

  resdet compare quickstart --backbones vgg16_bn resnet18 --seeds 3 --output runs/vgg_to_resnet
  resdet compare quickstart train.steps=300 --backbones resnet18 timm/convnext_atto --output runs/two
  resdet compare CONFIG --backbones vgg16:optim.lr=0.005 resnet50:model.backbone.norm=gn,optim.lr=0.02 --output DIR
  resdet compare CONFIG --backbones scratch=resnet50 ImageNet=resnet50:model.backbone.weights=FILE --output DIR
  resdet compare CONFIG --backbones resnet50 resnet101 --seeds 3 --devices cuda:0 cuda:1 --output DIR
  resdet compare CONFIG --backbones resnet50 resnet101 --output DIR --engine ray --address HOST:6379
  resdet compare CONFIG --backbones vgg16_bn resnet18 --seeds 3 --output runs/vgg_to_resnet --report-only
  resdet compare CONFIG --backbones vgg16_bn resnet18 --seeds 3 --output runs/vgg_to_resnet --dry-run

Overrides after a colon are a contestant's own; the page lists them. A name before an equals sign replaces that long
name. Runs with other settings in --output are refused.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from resdet.cli.engines import add_engine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="CONFIG | key=value",
        help="YAML files or names of configs, then changes of keys for all runs",
    )
    parser.add_argument(
        "--backbones",
        nargs="+",
        required=True,
        metavar="BACKBONE",
        help="the contestants, each [NAME=]BACKBONE[:key=value,...]; all are compared with the first. BACKBONE is a "
        "name of resdet's, or timm/<model>",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=1,
        metavar="K",
        help="runs of each, with train.seed 0 to K-1 (default: %(default)s)",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the comparison")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once on a device (default: 1)")
    parser.add_argument(
        "--devices",
        nargs="+",
        default=[],
        metavar="DEVICE",
        help="where to train: cpu, or cuda:0 cuda:1 ... (default: as train.device says)",
    )
    add_engine(parser)
    parser.add_argument("--figure", type=Path, metavar="FILE.png", help="also draw AP over steps (with eval.every)")
    parser.add_argument("--report-only", action="store_true", help="train nothing; compare the runs that are finished")
    parser.add_argument("--dry-run", action="store_true", help="list the runs and what is left of them; write nothing")
    parser.add_argument(
        "--resamples",
        type=int,
        default=1000,
        metavar="N",
        help="resamples of the images for the intervals (default: %(default)s)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=5,
        metavar="N",
        help="rounds of timed predictions; 0 leaves them out (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Trains and compares; returns the exit code. Raises UserError for mistakes and failed runs, and Stopped after a
    signal.
    """
    from resdet.cli.comparison_tables import print_comparison
    from resdet.cli.inputs import split_inputs
    from resdet.errors import UserError
    from resdet.workflows.compare import compare, planned_runs, request_of

    files, overrides = split_inputs(args.inputs)
    numbers = {"seeds": args.seeds, "resamples": args.resamples, "rounds": args.rounds}
    if args.dry_run:
        for line in planned_runs(request_of(files, args.backbones, args.output, overrides=overrides, **numbers)):
            print(line)
        return 0
    done = compare(
        files,
        args.backbones,
        args.output,
        overrides=overrides,
        jobs=args.jobs,
        devices=args.devices,
        report_only=args.report_only,
        figure=args.figure,
        engine=args.engine,
        address=args.address,
        **numbers,
    )
    if done.comparison:
        print_comparison(done.comparison)
        print(f"\npage: {args.output}/compare.html   figures: {args.output}/compare.json   runs: {args.output}/runs")
    if done.failures:
        raise UserError("; ".join(f"{name} failed: {reason}" for name, reason in done.failures.items()))
    return 0
