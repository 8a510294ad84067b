"""Train a detector and evaluate it.

A CONFIG is a YAML file, or the name of one that comes with resdet (resdet configs lists them). Configs are merged left
to right over the defaults, then key=value overrides.

  resdet train quickstart --output runs/quickstart
  resdet train quickstart model.backbone.name=vgg16 --output runs/vgg16
  resdet train quickstart --output runs/quickstart --resume
  resdet train quickstart --dry-run
  resdet train quickstart --find-lr --output runs/rates
  torchrun --nproc-per-node=2 tools/train.py configs/quickstart.yaml --output runs/two

Ctrl-C, SIGTERM and SIGUSR1 save a checkpoint before leaving with exit code 143; a second one leaves at once.
The output folder has config.yaml, metrics.jsonl, eval.json, predictions.json (COCO results of the last evaluation),
log.txt, data_report.json, checkpoints/, best (the name of the best checkpoint), drawings/ (ground truth beside
predictions; overview.jpg has all of them) and report.html (all of it on one page; resdet report writes it anew).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from resdet.text import printable

if TYPE_CHECKING:
    from resdet.config import Config
    from resdet.workflows.train import TrainedRun


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="CONFIG | key=value",
        help="YAML files or names of configs, then changes of keys (--help-config lists the keys)",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder of the run; must be new, unless resumed")
    parser.add_argument(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        metavar="CHECKPOINT",
        help="continue the run in --output from its newest checkpoint, or from the one given; without CONFIG its own",
    )
    parser.add_argument("--dry-run", action="store_true", help="a few steps and one evaluation batch; writes nothing")
    parser.add_argument(
        "--find-lr",
        type=int,
        nargs="?",
        const=100,
        metavar="STEPS",
        help="no training: a plot of the loss while the learning rate grows, and a suggestion for optim.lr (100 steps)",
    )
    parser.add_argument(
        "--overfit", type=int, metavar="N", help="train.overfit=N: train and evaluate on the first N training images"
    )
    parser.add_argument(
        "--help-config",
        nargs="?",
        const="",
        metavar="PREFIX",
        help="print the keys of a config, all or those below PREFIX (such as model.rpn), with type, default and bounds",
    )


def run(args: argparse.Namespace) -> int:
    """Trains; returns the exit code. Raises UserError for a user's mistake, Stopped after a signal."""
    if args.help_config is not None:
        from resdet.config.help import config_help

        print(config_help(args.help_config))
        return 0
    config, output = asked(args)
    if args.find_lr is not None:
        return find_rate(config, output, args.find_lr)

    from resdet.engine.distributed import is_lead
    from resdet.engine.task.table import task_of
    from resdet.workflows.train import train, with_pictures

    run = train(config, output, resume=args.resume, dry_run=args.dry_run, pictures=False)
    if not args.dry_run and is_lead():
        report(run.figures, output)
        run = with_pictures(run)
        pictures = {"drawings": run.drawings, "report": run.report}
        for line in (*(f"{name}: {path}" for name, path in pictures.items() if path), *run.remarks):
            print(printable(line))
        if task_of(config).has_detections:
            advise(run)
        else:
            print(f"next: resdet evaluate {output}   resdet probe --runs {output} --output {output}/probe")
    return 0


def asked(args: argparse.Namespace) -> tuple[Config, Path]:
    """The config and the folder that a command line asks for. Raises UserError where that is not clear."""
    from resdet.cli.inputs import split_inputs
    from resdet.config import load_config
    from resdet.engine.run_folder import RunFiles
    from resdet.errors import UserError

    if args.output is None and not args.dry_run:
        raise UserError("--output DIR is missing: the folder for checkpoints, metrics and figures, such as runs/first")
    if args.find_lr is not None and (args.resume or args.dry_run):
        raise UserError("--find-lr trains from the beginning and keeps nothing; leave --resume and --dry-run out")
    if isinstance(args.resume, str) and args.resume.endswith((".yaml", ".yml")):
        raise UserError(f"--resume took {args.resume} for a checkpoint; write the config before --resume")
    files, overrides = split_inputs(args.inputs)
    output = args.output or Path("dry-run")  # a dry run writes nothing
    config_file = RunFiles(output).config
    if not files and args.resume and config_file.exists():
        files = [str(config_file)]
    if not files:
        raise UserError("no CONFIG given; try quickstart (resdet configs lists all)")
    if args.overfit is not None:
        overrides.append(f"train.overfit={args.overfit}")
    return load_config(*files, overrides=overrides), output


def find_rate(config: Config, output: Path, steps: int) -> int:
    """A range test; prints its result."""
    from resdet.engine.distributed import is_lead
    from resdet.workflows.find_learning_rate import PLOT, find_learning_rate

    test = find_learning_rate(config, output, steps=steps)
    if is_lead():
        print(f"{len(test.rates)} of {steps} steps; the loss is lowest at optim.lr={test.lowest:.2g}")
        if test.suggestion is None:
            print("the loss does not fall at any of these rates; check the data with resdet train --overfit 8")
        else:
            print(f"suggestion, where it falls most steeply: optim.lr={test.suggestion:g}")
        print(printable(f"plot: {output / PLOT}"))
    return 0


def report(metrics: dict[str, float | None], output: Path) -> None:
    """The figures as tables, and the paths of the files that contain them."""
    from resdet.cli.tables import print_figures
    from resdet.engine.run_folder import RunFiles
    from resdet.text import printable

    print_figures({printable(name): value for name, value in metrics.items()}, title=str(output))
    files = RunFiles(output)
    print(f"\nfigures: {files.figures}   log: {files.log}   checkpoints: {files.checkpoints}")


def advise(run: TrainedRun) -> None:
    """The next commands that the user can run."""
    print("next:")
    print(f"  resdet predict {run.checkpoint} IMAGES --output {run.folder}/predictions")
    print(f"  resdet evaluate {run.checkpoint}")
    print("  the same with another backbone: model.backbone.name=vgg16 and a new --output")
