"""Look inside nets: gradient, response and update of each layer, over a few training steps.

The measurements of He et al. 2015: whether gradients vanish (section 4.1), and how large the responses of plain and
residual layers are (Fig. 7). Every combination of --backbones, --norms and --inits is a network; an option that is not
given keeps the config's value. --runs measures trained networks instead, on the first training batch of each;
with --over-training before the first update and at each checkpoint that a run has (train.keep_checkpoints).

  resdet probe cifar/patches --backbones plain20_cifar plain56_cifar --norms bn none --output probe
  resdet probe quickstart --backbones vgg16 resnet50 --kernels all --steps 20 --output probe
  resdet probe --runs runs/plain20 runs/plain56 runs/resnet20 runs/resnet56 --output probe
  resdet probe --runs runs/plain20 runs/resnet20 --over-training --output probe

The output folder receives probe.html (a page of plots, one file) and probe.json (the numbers, by net, step and layer).
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs", nargs="*", metavar="CONFIG | key=value", help="YAML files or names of configs, then changes of keys"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for probe.html, probe.json")
    parser.add_argument("--backbones", nargs="+", default=[], metavar="NAME", help="nets to compare")
    parser.add_argument(
        "--norms", nargs="+", default=[], metavar="NORM", help="norms to compare: frozen_bn, bn, sync_bn, gn, none"
    )
    parser.add_argument(
        "--inits",
        nargs="+",
        default=[],
        metavar="INIT",
        help="initial weights of the backbone to compare: he (as built), xavier, gaussian (0.01)",
    )
    parser.add_argument("--runs", nargs="+", type=Path, default=[], metavar="RUN", help="look at trained nets instead")
    parser.add_argument(
        "--over-training", action="store_true", help="look at the start and all checkpoints of --runs, not at their end"
    )
    parser.add_argument(
        "--kernels", choices=["3x3", "all"], default="3x3", help="which convolutions to look at (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="training steps (default: %(default)s)")
    parser.add_argument(
        "--every", type=int, default=5, metavar="N", help="look after every N steps (default: %(default)s)"
    )
    parser.add_argument(
        "--figure", type=Path, metavar="FILE", help="also draw the first, middle and last look, as a PNG"
    )


def run(args: argparse.Namespace) -> int:
    from resdet.cli.inputs import split_inputs
    from resdet.config import load_config
    from resdet.errors import UserError

    if args.steps < 1 or args.every < 1:
        raise UserError(f"--steps {args.steps} --every {args.every}: both must be at least 1")
    files, overrides = split_inputs(args.inputs)
    if bool(files) == bool(args.runs):
        raise UserError("give a CONFIG to probe nets from their start, or --runs to look at trained ones")
    if args.over_training and not args.runs:
        raise UserError("--over-training looks at the checkpoints of --runs; give them")
    if args.runs and (overrides or args.backbones or args.norms or args.inits):
        raise UserError("--runs are looked at as they were trained; leave out overrides, --backbones, --norms, --inits")

    from resdet.analysis.pages.figure import ANOTHER_FIGURE
    from resdet.analysis.probe.layers import nets_of, nets_of_runs, probe
    from resdet.analysis.probe.page import draw_figure, summary_rows, to_json, to_page
    from resdet.outputs import check_output, check_outputs, write_outputs

    check_outputs(args.output, ("probe.html", "probe.json"))
    if args.figure:
        check_output(args.figure, ANOTHER_FIGURE)
    if args.runs:
        nets = nets_of_runs(args.runs, over_training=args.over_training)
    else:
        nets = nets_of(load_config(*files, overrides=overrides), args.backbones, args.norms, args.inits)
    seen = {}
    for net in nets:
        print(f"probing {net.name}", flush=True)
        seen[net.name] = probe(net, steps=args.steps, every=args.every, kernels=args.kernels)
    write_outputs(args.output, {"probe.html": to_page(seen).encode(), "probe.json": to_json(seen).encode()})
    if args.figure:
        draw_figure(seen, args.figure)
    print(aligned(summary_rows(seen)))
    print(f"page: {args.output}/probe.html   numbers: {args.output}/probe.json")
    return 0


def aligned(rows: list[dict[str, str]]) -> str:
    """A table as text: the first column aligned to the left, the others to the right."""
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    first, *widths = (max(map(len, column)) for column in zip(*lines, strict=True))
    return "\n".join(
        "  ".join([name.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))])
        for name, *cells in lines
    )
