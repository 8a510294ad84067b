"""List the published detectors that commands take by name, with AP, size and licence.

They are fetched at their first use; `resdet models NAME` says how to get the file of one for a machine without network.

  resdet models
  resdet models fasterrcnn_resnet50_fpn_v2
  resdet predict fasterrcnn_resnet50_fpn_v2 photo.jpg
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="say more about this detector")


def run(args: argparse.Namespace) -> int:
    """Prints; returns the exit code. Raises UserError for a name that is not known."""
    from resdet.engine.published import LICENCE, PublishedDetector, published_detector, published_detectors

    def line(name: str, *values: str) -> str:
        return f"{name:28}" + "".join(f"{value:>12}" for value in values)

    def row(each: PublishedDetector) -> str:
        masks = "-" if each.mask_ap is None else f"{each.mask_ap:.3f}"
        sizes = f"{each.parameters / 1e6:.1f} M", f"{each.gflops:.0f}", f"{each.megabytes:.0f} MB"
        return line(each.name, f"{each.box_ap:.3f}", masks, *sizes, "yes" if each.is_here else "no")

    if args.name is None:
        print(line("name", "box AP", "mask AP", "parameters", "GFLOP", "file", "here"))
        for each in published_detectors():
            print(row(each))
        print(f"AP: torchvision's own figures on COCO val2017, 80 classes. Licence: {LICENCE}.")
        return 0
    each = published_detector(args.name)
    masks = "" if each.mask_ap is None else f", mask AP {each.mask_ap:.3f}"
    print(f"{each.name}: box AP {each.box_ap:.3f}{masks} on COCO val2017, by torchvision's own figures")
    print(f"{each.parameters:,} parameters, {each.gflops:.0f} GFLOP for an image, a file of {each.megabytes:.0f} MB")
    print(f"licence: {LICENCE}")
    print(f"file: {each.url}")
    print(f"{'is at' if each.is_here else 'without network: fetch it elsewhere and put it at'} {each.file}")
    return 0
