"""List the published detectors that commands take by name, with AP, size and licence.

They are fetched at their first use; `resdet models NAME` says how to get the file of one for a machine without network.

  resdet models
  resdet models fasterrcnn_resnet50_fpn_v2
  resdet predict fasterrcnn_resnet50_fpn_v2 photo.jpg
  resdet predict COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x photo.jpg
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resdet.engine.published import PublishedDetector


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="say more about this detector")


def run(args: argparse.Namespace) -> int:
    """Prints; returns the exit code. Raises UserError for a name that is not known."""
    from resdet.engine.published import LICENCES, published_detector, published_detectors

    if args.name is None:
        detectors = published_detectors()
        for publisher, scored_on in dict.fromkeys((each.publisher, each.scored_on) for each in detectors):
            print_list([each for each in detectors if (each.publisher, each.scored_on) == (publisher, scored_on)])
            print(f"AP: {publisher}'s own figures on {scored_on}. Licence: {LICENCES[publisher]}.\n")
        return 0
    each = published_detector(args.name)
    stated = {"box": each.box_ap, "mask": each.mask_ap}
    figures = ", ".join(f"{kind} AP {value:.3f}" for kind, value in stated.items() if value is not None)
    print(f"{each.name}: {figures} on {each.scored_on}, by {each.publisher}'s own figures")
    if each.parameters is not None:
        print(
            f"{each.parameters:,} parameters, {each.gflops:.0f} GFLOP for an image, a file of {each.megabytes:.0f} MB"
        )
    print(f"licence: {each.licence}")
    print(f"file: {each.url}")
    print(f"{'is at' if each.is_here else 'without network: fetch it elsewhere and put it at'} {each.file}")
    return 0


def print_list(detectors: list[PublishedDetector]) -> None:
    """A line each; what the publisher does not say about any of them has no column."""
    columns: dict[str, tuple[int, list[str]]] = {  # by title: width and values
        "box AP": (8, ["-" if each.box_ap is None else f"{each.box_ap:.3f}" for each in detectors]),
        "mask AP": (9, ["-" if each.mask_ap is None else f"{each.mask_ap:.3f}" for each in detectors]),
        "parameters": (12, ["" if each.parameters is None else f"{each.parameters / 1e6:.1f} M" for each in detectors]),
        "GFLOP": (7, ["" if each.gflops is None else f"{each.gflops:.0f}" for each in detectors]),
        "file": (8, ["" if each.megabytes is None else f"{each.megabytes:.0f} MB" for each in detectors]),
        "here": (6, ["yes" if each.is_here else "no" for each in detectors]),
    }
    width = max(len(each.name) for each in detectors)
    said = {title: column for title, column in columns.items() if any(column[1])}
    print(f"{'name':{width}}" + "".join(f"{title:>{wide}}" for title, (wide, _) in said.items()))
    for number, each in enumerate(detectors):
        print(f"{each.name:{width}}" + "".join(f"{values[number]:>{wide}}" for wide, values in said.values()))
