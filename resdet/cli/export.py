"""Export a trained detector for other programs: ONNX, OpenVINO, torch's exported program, or a page for the browser.

DIR receives the graph (boxes and masks, any number and size of images), contract.json with its inputs and outputs,
class_names.json, example.py, which runs it with the runtime and numpy alone, and README.md, a model card. Everything
is written at the end, or nothing. The graph is compared with the model on 20 images of the val set; --measure also
compares their AP on all of it.

A graph takes images as they are (uint8, any size) and gives boxes in their pixels; with --preprocessing outside, and
always for pt2, it takes a resized and padded batch.

With --format web DIR is a static page that runs the detector in the browser: any server of files can give it out. Its
runtime, onnxruntime-web, is fetched once by npm, or taken from --runtime.

  resdet export runs/quickstart --output exported
  resdet export runs/quickstart --format openvino --precision fp16 --measure
  resdet export runs/quickstart --precision int8 --measure --output small
  resdet export runs/quickstart --format pt2
  resdet export runs/quickstart --format web --output page
  python3 -m http.server --directory page
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from resdet.cli.inputs import CHECKPOINT, OVERRIDES

if TYPE_CHECKING:
    from resdet.workflows.export import Exported

FORMATS = ("onnx", "openvino", "pt2", "web")
PRECISIONS = ("fp32", "fp16", "int8", "int8-dynamic")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help=CHECKPOINT)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=OVERRIDES)
    parser.add_argument("--format", choices=FORMATS, default="onnx", help="what to write (default: onnx)")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="fp32",
        help="numbers of weights and maps; int8 measures their ranges on 100 training images (default: fp32)",
    )  # fmt: skip
    parser.add_argument(
        "--preprocessing", choices=("inside", "outside"),
        help="whether the graph resizes images, or its user (default: inside where the format has it)",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, metavar="DIR", default=Path("exported"), help="the folder to write (default: exported)"
    )
    parser.add_argument(
        "--runtime", type=Path, metavar="PATH",
        help="onnxruntime-web for --format web: a folder with its files or npm's archive (default: fetched by npm)",
    )  # fmt: skip
    parser.add_argument("--measure", action="store_true", help="also compare the AP of model and graph on the val set")


def run(args: argparse.Namespace) -> int:
    """Exports and prints what was written. Raises UserError for a user's mistake."""
    from resdet.text import printable
    from resdet.workflows.export import export

    done = export(
        args.checkpoint,
        args.output,
        format=args.format,
        precision=args.precision,
        preprocessing=args.preprocessing,
        overrides=args.overrides,
        measure=args.measure,
        runtime=args.runtime,
    )
    for line in said(done):
        print(printable(line))
    return 0


def said(done: Exported) -> list[str]:
    """The lines about an export."""
    from resdet.exporting.checks import EXPORTED, MODEL

    found = done.parity
    size = sum(path.stat().st_size for path in done.folder.iterdir()) / 2**20
    lines = [
        f"{done.file}: {size:.1f} MiB in {done.folder}",
        f"on {found.images} images with {found.detections} detections: {found.unequal} images differ in number or"
        f" label; the others at most by {found.scores:.1e} in a score and {found.boxes:.1e} pixels in a box",
        *(f"warning: {remark}" for remark in done.remarks),
    ]
    for kind, compared in done.cost.kinds.items() if done.cost else ():
        model, graph = (compared.detectors[name]["AP"] for name in (MODEL, EXPORTED))
        change = compared.differences[EXPORTED]["AP"]
        if model.value is None or graph.value is None or change.low is None or change.high is None:
            lines.append(f"{kind}/AP: undefined on this val set")
            continue
        lines.append(
            f"{kind}/AP: model {model.value:.4f}, graph {graph.value:.4f}, difference {graph.value - model.value:+.4f} "
            f"({change.low:+.4f} to {change.high:+.4f})"
        )
    if (done.folder / "index.html").is_file():
        lines.append(f"python3 -m http.server --directory {done.folder}   # then open http://localhost:8000")
    return lines
