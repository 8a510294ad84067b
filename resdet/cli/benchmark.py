"""Time a training step and a prediction, alone or against torchvision's detector of the same architecture.

Of a config with task=classification, the loader: images a second of data.workers processes, against ImageFolder.

Both run alternately in one process on the same images; the ratio is the median over pairs of the peer's time
over ours, so above 1 means that resdet is faster.

examples:
  tools/benchmark.py configs/faster_rcnn_r50_fpn_1x_coco.yaml --size 480x640 --batch 2 --against torchvision
  tools/benchmark.py configs/quickstart.yaml train.compile=true --json times.json
  tools/benchmark.py configs/imagenet/miniature.yaml data.workers=1 --against torchvision
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resdet.config import Config

OTHER_FILE = "choose another file for --json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="+", metavar="CONFIG | key=value", help="YAML files and key=value overrides")
    parser.add_argument("--size", default="480x640", help="height x width of the images (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=2, help="images a step (default: %(default)s)")
    parser.add_argument("--against", choices=["torchvision"], help="a peer to measure in the same run")
    parser.add_argument("--pairs", type=int, default=7, help="measured runs of each (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write the figures as JSON")


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from rich.console import Console
    from rich.table import Table

    from resdet.analysis.benchmark.timing import benchmark
    from resdet.cli.inputs import split_inputs
    from resdet.config import load_config
    from resdet.engine.task.table import task_of
    from resdet.errors import UserError
    from resdet.files import readable_json
    from resdet.outputs import check_output, signed, write_output

    height, _, width = args.size.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise UserError(f"--size {args.size}: write height x width in pixels, for example 480x640")
    if args.batch < 1 or args.pairs < 1:
        raise UserError(f"--batch {args.batch} --pairs {args.pairs}: both must be at least 1")
    if args.json:
        check_output(Path(args.json), OTHER_FILE)
    files, overrides = split_inputs(args.config)
    config = load_config(*files, overrides=overrides)
    if not task_of(config).has_detections:
        return measure_loading(config, args)
    results = benchmark(
        config,
        size=(int(height), int(width)),
        batch_size=args.batch,
        against=args.against,
        pairs=args.pairs,
    )
    table = Table(title=f"batch {args.batch}, {height} x {width} pixels, median of {args.pairs}")
    for column in ("", "resdet", *([args.against, "times faster"] if args.against else [])):
        table.add_column(column, justify="right")
    for name, title in (("train", "training step"), ("predict", "prediction")):
        peer = [f"{results[f'{name}/peer_seconds']:.3f} s", f"{results[f'{name}/ratio']:.2f}"] if args.against else []
        table.add_row(title, f"{results[f'{name}/seconds']:.3f} s", *peer)
    Console().print(table)
    if args.json:
        write_output(Path(args.json), readable_json(signed(results)), OTHER_FILE)
    return 0


def measure_loading(config: Config, args: argparse.Namespace) -> int:
    """Prints and writes the images a second of a classifier's loader; returns the exit code."""
    from pathlib import Path

    from resdet.analysis.benchmark.loading import benchmark_loading
    from resdet.files import readable_json
    from resdet.outputs import signed, write_output

    results = benchmark_loading(config, against=args.against, pairs=args.pairs)
    print(f"{results['load/images_per_second']:.1f} images/s by {results['workers']} workers (0: the process itself)")
    if args.against:
        peer, ratio = results["load/peer_images_per_second"], results["load/ratio"]
        print(f"{peer:.1f} images/s by {args.against}'s ImageFolder; ours is {ratio:.2f} times as fast")
    if args.json:
        write_output(Path(args.json), readable_json(signed(results)), OTHER_FILE)
    return 0
