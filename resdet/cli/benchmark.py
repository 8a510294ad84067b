"""Time a training step and a prediction, alone or against torchvision's detector of the same architecture.

Of an exported folder, or the graph in it: latency (p50, p99) and images a second of the graph in ONNX Runtime and
OpenVINO and of its model, eager and compiled, in one run, from an image in memory to detections.

Of a config with task=classification, the loader: images a second of data.workers processes, against ImageFolder.
With --data the loader of a detector: images a second of processor time, against torchvision's CocoDetection with its
transforms v2, a mapper as Detectron2's, and the decoder alone.

Both run alternately in one process on the same images; the ratio is the median over pairs of the peer's time
over ours, so above 1 means that resdet is faster.

It also prints the share of the optimizer in the step, as a loop and fused (optim.fused), and whether both give the same
bits. --growth DIR measures instead how time and memory grow with image size, batch, objects, proposals, classes and the
depth of the backbone around --size and --batch, and writes growth.json, growth.md and growth.png.

With an earlier file of --json in place of torchvision, torchvision is measured again, and the ratios are compared with
those of the file: the exit code is 1 if training or prediction has become slower by more than a tenth.

  resdet benchmark faster_rcnn_r50_fpn_1x_coco --size 480x640 --batch 2 --against torchvision
  resdet benchmark quickstart --against torchvision --json times.json
  resdet benchmark quickstart --against times.json
  resdet benchmark mask_rcnn_r50_fpn_1x_coco data.path=my/coco --data --against torchvision
  resdet benchmark exported/model.onnx --size 480x640 --batch 1
  resdet benchmark faster_rcnn_r50_fpn_1x_coco --growth measured --pairs 3
  resdet benchmark imagenet/miniature data.workers=1 --against torchvision
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resdet.config import Config

PEER = "torchvision"
TITLES = {"train": "training step", "predict": "prediction"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="+", metavar="CONFIG | MODEL.onnx | key=value",
                        help="YAML files and key=value overrides, or an exported detector")  # fmt: skip
    parser.add_argument(
        "--size", default="480x640", metavar="HxW", help="height x width of the images (default: %(default)s)"
    )
    parser.add_argument("--batch", type=int, metavar="N", help="images a step (default: 2; of an exported detector 1)")
    parser.add_argument(
        "--against",
        metavar="torchvision | FILE",
        help="a peer to measure in the same run, or an earlier file of --json",
    )
    parser.add_argument("--data", action="store_true", help="measure the loader of training batches instead")
    parser.add_argument(
        "--images", type=int, default=64, metavar="N", help="with --data: images to read (default: %(default)s)"
    )
    parser.add_argument(
        "--pairs", type=int, metavar="N", help="measured runs of each (default: 7; of an exported detector 50)"
    )
    parser.add_argument("--growth", type=Path, metavar="DIR", help="measure how the cost grows, into this folder")
    parser.add_argument("--json", metavar="FILE", help="also write the figures as JSON")


def run(args: argparse.Namespace) -> int:
    from resdet.analysis.benchmark.exported import is_exported
    from resdet.cli.inputs import split_inputs
    from resdet.config import load_config
    from resdet.engine.task.table import task_of
    from resdet.errors import UserError
    from resdet.outputs import ANOTHER_JSON, check_output

    exported = len(args.config) == 1 and is_exported(Path(args.config[0]))
    size = size_of(args.size)
    args.batch = (1 if exported else 2) if args.batch is None else args.batch
    args.pairs = (50 if exported else 7) if args.pairs is None else args.pairs
    if args.batch < 1 or args.pairs < 1:
        raise UserError(f"--batch {args.batch} --pairs {args.pairs}: both must be at least 1")
    if args.json:
        check_output(Path(args.json), ANOTHER_JSON)
    if exported:
        return measure_exported(Path(args.config[0]), size, args)
    files, overrides = split_inputs(args.config)
    config = load_config(*files, overrides=overrides)
    if args.growth:
        return measure_growth(config, size, args)
    if not task_of(config).has_detections:
        return measure_loading(config, args)
    if args.data:
        return measure_detection_loading(config, args)
    return measure_steps(config, size, args)


def size_of(text: str) -> tuple[int, int]:
    """Height and width of --size."""
    from resdet.errors import UserError

    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise UserError(f"--size {text}: write height x width in pixels, for example 480x640")
    return int(height), int(width)


def earlier_file(args: argparse.Namespace) -> Path | None:
    return None if args.against in (None, PEER) else Path(args.against)


def check_peer_of_loader(args: argparse.Namespace) -> None:
    from resdet.errors import UserError

    if earlier := earlier_file(args):
        raise UserError(f"--against {earlier}: a loader is compared with torchvision alone")


def measure_steps(config: Config, size: tuple[int, int], args: argparse.Namespace) -> int:
    """Prints and writes the times of a training step and of a prediction; returns the exit code."""
    from resdet.analysis.benchmark.guard import check_same, read_earlier
    from resdet.analysis.benchmark.timing import benchmark
    from resdet.files import readable_json
    from resdet.outputs import ANOTHER_JSON, signed, write_output

    earlier = earlier_file(args)
    before = None if earlier is None else read_earlier(earlier)
    against = PEER if args.against else None
    results = benchmark(config, size=size, batch_size=args.batch, against=against, pairs=args.pairs)
    print_times(results)
    if args.json:
        write_output(Path(args.json), readable_json(signed(results)), ANOTHER_JSON)
    if before is None or earlier is None:
        return 0
    check_same(before, results, earlier)
    return print_changes(before, results)


def print_times(results: dict[str, Any]) -> None:
    """A table of the seconds, and of the ratios if a peer was measured."""
    from rich.console import Console
    from rich.table import Table

    against = "train/ratio" in results
    layout = "channels_last" if results["channels_last"] else "contiguous"
    size = f"{results['height']} x {results['width']} pixels"
    table = Table(title=f"batch {results['batch']}, {size}, {layout}, median of {results['pairs']}")
    for column in ("", "resdet", *([PEER, "times faster"] if against else [])):
        table.add_column(column, justify="right")
    for name, title in TITLES.items():
        peer = [f"{results[f'{name}/peer_seconds']:.3f} s", f"{results[f'{name}/ratio']:.2f}"] if against else []
        table.add_row(title, f"{results[f'{name}/seconds']:.3f} s", *peer)
    Console().print(table)
    print(described_optimizer(results))


def described_optimizer(results: dict[str, Any]) -> str:
    """The time of the optimizer, fused and not, and its share of the step."""
    plain, step = results["optimizer/plain_seconds"], results["train/seconds"]
    line = f"the optimizer's update: {plain:.4f} s, {plain / step:.1%} of the step"
    if "optimizer/fused_seconds" not in results:
        return f"{line}; it has no fused form"
    bits = "the same bits" if results["optimizer/same_bits"] else "other bits"
    fused, ratio = results["optimizer/fused_seconds"], results["optimizer/fused_ratio"]
    return f"{line}; fused {fused:.4f} s, {ratio:.2f} times as fast, {bits}"


def print_changes(before: dict[str, Any], results: dict[str, Any]) -> int:
    """Says how both ratios have changed; returns the exit code, 1 if one of them is slower."""
    from resdet.analysis.benchmark.guard import changes

    found = changes(before, results)
    for name, change in found.items():
        ratios = f"{before[f'{name}/ratio']:.2f} before, {results[f'{name}/ratio']:.2f} now"
        verdict = "SLOWER" if change.slower else "not slower"
        print(f"{TITLES[name]}: times faster than {PEER} {ratios}; {change.speed:.2f} of the speed: {verdict}")
    return int(any(change.slower for change in found.values()))


LOADERS = {
    "our": "resdet",
    "decode": "OpenCV's decoder alone",
    "torchvision": "torchvision's CocoDetection and transforms v2",
    "detectron2_like": "a mapper as Detectron2's",
}


def measure_detection_loading(config: Config, args: argparse.Namespace) -> int:
    """Prints and writes the images a second of a detector's loader; returns the exit code."""
    from resdet.analysis.benchmark.detection_loading import benchmark_detection_loading
    from resdet.analysis.benchmark.guard import processor
    from resdet.errors import UserError
    from resdet.files import readable_json
    from resdet.outputs import ANOTHER_JSON, signed, write_output

    check_peer_of_loader(args)
    if args.images < 1:
        raise UserError(f"--images {args.images}: give at least one")
    results = benchmark_detection_loading(config, against=args.against, pairs=args.pairs, images=args.images)
    what = "with masks" if results["masks"] else "with boxes"
    print(f"{results['images']} images {what}, processor time of one process on {processor()}")
    for name, words in LOADERS.items():
        if f"load/{name}_images_per_second" in results:
            ratio = "" if name == "our" else f", {results[f'load/{name}_ratio']:.2f} times the time of ours"
            print(f"{results[f'load/{name}_images_per_second']:.1f} images/s: {words}{ratio}")
    if args.json:
        write_output(Path(args.json), readable_json(signed(results | {"processor": processor()})), ANOTHER_JSON)
    return 0


def measure_growth(config: Config, size: tuple[int, int], args: argparse.Namespace) -> int:
    """Measures and writes how the cost grows; returns the exit code."""
    from resdet.analysis.benchmark.growth import Setting, growth
    from resdet.analysis.benchmark.growth_page import JSON, PAGE, PLOT, page, plot
    from resdet.engine.task.table import task_of
    from resdet.errors import UserError
    from resdet.files import readable_json
    from resdet.outputs import check_outputs, signed, write_outputs

    if args.against or args.json or not task_of(config).has_detections:
        raise UserError("--growth measures a detector alone; leave --against and --json out, and give a detector")
    check_outputs(args.growth, (JSON, PAGE, PLOT))
    results = growth(Setting(config, size, args.batch), rounds=args.pairs)
    text = page(results)
    content = {JSON: readable_json(signed(results)), PLOT: plot(results), PAGE: text.encode()}
    write_outputs(args.growth, content)
    print(text)
    return 0


def measure_loading(config: Config, args: argparse.Namespace) -> int:
    """Prints and writes the images a second of a classifier's loader; returns the exit code."""
    from resdet.analysis.benchmark.loading import benchmark_loading
    from resdet.files import readable_json
    from resdet.outputs import ANOTHER_JSON, signed, write_output

    check_peer_of_loader(args)
    results = benchmark_loading(config, against=args.against, pairs=args.pairs)
    print(f"{results['load/images_per_second']:.1f} images/s by {results['workers']} workers (0: the process itself)")
    if args.against:
        peer, ratio = results["load/peer_images_per_second"], results["load/ratio"]
        print(f"{peer:.1f} images/s by {args.against}'s ImageFolder; ours is {ratio:.2f} times as fast")
    if args.json:
        write_output(Path(args.json), readable_json(signed(results)), ANOTHER_JSON)
    return 0


def measure_exported(given: Path, size: tuple[int, int], args: argparse.Namespace) -> int:
    """Prints and writes the latencies of an exported detector; returns the exit code."""
    from rich.console import Console
    from rich.table import Table

    from resdet.analysis.benchmark.exported import benchmark_exported
    from resdet.errors import UserError
    from resdet.files import readable_json
    from resdet.outputs import ANOTHER_JSON, signed, write_output
    from resdet.text import printable

    for option in ("against", "growth"):
        if (value := getattr(args, option)) is not None:
            raise UserError(f"--{option} {value}: an exported detector is compared with its own model; leave it out")
    measured = benchmark_exported(given, size=size, batch=args.batch, rounds=args.pairs)
    table = Table(
        title=f"{measured.contract.file}, {measured.contract.precision}: {args.batch} x {args.size}, {args.pairs} calls"
    )
    first = next(iter(measured.latencies))
    for column in ("", "p50", "p99", "images/s", f"times as fast as {first}"):
        table.add_column(column, justify="right")
    for name, latency in measured.latencies.items():
        times = f"{1000 * latency.p50:.1f} ms", f"{1000 * latency.p99:.1f} ms", f"{latency.throughput:.2f}"
        table.add_row(name, *times, f"{measured.ratios[name]:.2f}")
    Console().print(table)
    for remark in measured.remarks:
        print(printable(f"missing: {remark}"))
    if args.json:
        write_output(Path(args.json), readable_json(signed(measured.to_json())), ANOTHER_JSON)
    return 0
