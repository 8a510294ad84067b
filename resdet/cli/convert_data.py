"""Convert a data set to COCO, YOLO, Pascal VOC, csv or shards (tar archives as WebDataset's).

The format of a folder is recognized by its layout, and all of its splits are converted. Prints what the new format
cannot hold, with counts.

  resdet convert-data my/bees --format yolo --output my/bees-yolo
  resdet convert-data annotations.json images/ --format voc --output my/voc
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("source", metavar="SOURCE", help="a folder, or an annotation file")
    parser.add_argument("images", metavar="IMAGES", nargs="?", help="the folder of the images of an annotation file")
    parser.add_argument("--format", required=True, metavar="F", help="what to write: coco, yolo, voc, csv or shards")
    parser.add_argument(
        "--from",
        dest="source_format",
        default="auto",
        metavar="F",
        help="the format of SOURCE if it may be several: coco, voc, ... (default: by its layout)",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="a new folder, which gets copies of the images")


def run(args: argparse.Namespace) -> int:
    """Converts and prints; returns the exit code. Raises UserError for data that cannot be read or written."""
    from resdet.text import printable
    from resdet.workflows.convert_data import convert_data

    done = convert_data(args.source, args.format, args.output, images=args.images, source_format=args.source_format)
    lines = [f"read {remark}" for remark in done.remarks]
    lines += [f"{split}: {count} images and {done.objects[split]} objects" for split, count in done.images.items()]
    lines += [f"lost in {args.format}: {count} {what}" for what, count in done.lost.items()]
    lines.append(f"wrote {done.folder}   (resdet check-data {done.folder})")
    for line in lines:
        print(printable(line))
    return 0
