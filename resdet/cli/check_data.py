"""Check an annotation file and its images before training on them.

Prints the number of annotations that were read, skipped or corrected, how objects are spread over classes and sizes,
and which keys of a config suit them on this machine (resdet new writes a config with these). An error that would stop a
training run stops this command too: one line, exit code 2.

  resdet check-data my/bees
  resdet check-data my/bees --split val
  resdet check-data annotations.json images/
  resdet check-data my/ImageSets/Main/train.txt my/JPEGImages
  resdet check-data --augment quickstart data.augment.transforms=heavy
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from resdet.coco.report import Note
    from resdet.data.sets.coco import CocoDataset

# COCO's, by area in pixels.
SIZES = (("small (under 32 x 32)", 0, 32**2), ("medium", 32**2, 96**2), ("large (over 96 x 96)", 96**2, float("inf")))


ANNOTATION_FILES = (".json", ".txt", ".csv", ".xml")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument(
        "annotations",
        metavar="ANNOTATIONS",
        nargs="?",
        help="a folder, a COCO json, a VOC split (ImageSets/Main/train.txt), a csv, or a format of --plugin; with "
        "--augment not needed",
    )
    parser.add_argument("images", metavar="IMAGES", nargs="?", help="folder that its file names are relative to")
    parser.add_argument(
        "--split", choices=("train", "val", "test"), default="train", help="which split of a folder (default: train)"
    )
    parser.add_argument(
        "--from",
        dest="format",
        default="auto",
        metavar="F",
        help="the format of a folder if it may be several: coco, yolo, voc, ... (default: by its layout)",
    )
    parser.add_argument("--decode", action="store_true", help="also decode every image (minutes for 100,000)")
    parser.add_argument("--strict", action="store_true", help="anything skipped or mended is an error")
    parser.add_argument(
        "--augment",
        nargs="+",
        metavar=("CONFIG", "key=value"),
        help="draw training samples as this config augments them, with boxes and masks, on one sheet; of ANNOTATIONS, "
        "or of the config's training set",
    )
    parser.add_argument(
        "--sheet", metavar="FILE.png", default="augmented.png", help="where --augment draws (default: %(default)s)"
    )
    parser.add_argument(
        "--samples", metavar="N", type=int, default=12, help="samples on the sheet of --augment (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Reads, checks and prints; returns the exit code. Raises UserError for data that cannot be trained on."""
    from rich.console import Console

    from resdet.errors import UserError

    if args.augment and args.annotations is None:
        _draw_augmented(args, Console())
        return 0
    dataset = _opened(args)
    report = dataset.report
    console = Console()
    console.print(_plain(", ".join([report.annotations, *report.remarks])), soft_wrap=True)
    for table in (_overview(dataset), _classes(report.class_counts), _sizes(dataset)):
        console.print(table)
    notes = _notes(report.skipped, report.skipped_masks, report.fixed)
    if notes.row_count:
        console.print(notes)
    for note in dataset.ground_truth().notes("segm" if report.masks else "bbox"):
        console.print(f"scoring: {_plain(note)}", soft_wrap=True)
    if bool((~dataset.crowd).any()):
        console.print(_suggestions(dataset))
    if args.strict and notes.row_count:
        raise UserError(f"{report.summary()}; mend the annotations, or leave out --strict")
    if args.decode:
        _decode_all(dataset)
        console.print(f"all {len(dataset)} images decode")
    if args.augment:
        _draw_augmented(args, console)
    return 0


def _opened(args: argparse.Namespace) -> CocoDataset:
    """The data set that the command names."""
    from pathlib import Path

    from resdet.data.sets.formats import read_set
    from resdet.data.sets.opened import is_folder, local, open_folder
    from resdet.errors import UserError

    if args.annotations is None:
        raise UserError("give a folder, or ANNOTATIONS and the folder of its IMAGES, or --augment CONFIG")
    place = local(args.annotations)
    if args.images is None:
        if not is_folder(place) and (place.exists() or place.suffix in ANNOTATION_FILES):
            raise UserError(f"{args.annotations}: is an annotation file; give also the folder of its IMAGES")
        return open_folder(place, args.split, format=args.format)
    if args.format != "auto":
        raise UserError(f"--from {args.format}: is of a folder; a file says by its name what it is")
    return read_set(place, Path(args.images))


def _draw_augmented(args: argparse.Namespace, console: Console) -> None:
    """Draws the sheet of augmented samples, and prints what became of the objects."""
    from pathlib import Path

    from resdet.errors import UserError
    from resdet.outputs import check_output
    from resdet.workflows.augmented_sheet import ANOTHER_SHEET, draw_augmented

    if args.samples < 1:
        raise UserError(f"--samples {args.samples}: give a number of at least 1")
    check_output(Path(args.sheet), ANOTHER_SHEET)
    config, *overrides = args.augment
    if args.annotations is not None:
        named = [f"data.train.annotations={args.annotations}", f"data.train.images={args.images}"]
        folder = [f"data.path={args.annotations}", f"data.format={args.format}"]
        overrides += folder if args.images is None else named
    sheet = draw_augmented(config, overrides=overrides, count=args.samples)
    table = _table("Augmented samples", "objects", "count")
    for name, count in (("to learn", sheet.objects), ("ignored", sheet.ignored), *sheet.dropped.items()):
        table.add_row(name, f"{count:,}")
    console.print(table)
    console.print(f"wrote {_plain(str(sheet.save(args.sheet)))}", soft_wrap=True)


def _table(title: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right")
    return table


def _overview(dataset: CocoDataset) -> Table:
    report = dataset.report
    areas = dataset.areas[~dataset.crowd]
    table = _table("Contents", "what", "count")
    rows = (
        ("images", report.images),
        ("  without objects", report.images_without_objects),
        ("  with crowd regions only", report.images_with_crowd_only),
        ("annotations read", report.annotations_read),
        ("  skipped", report.annotations_read - report.annotations_kept),
        ("  objects", report.objects),
        *((f"    {name}", int(((areas >= low) & (areas < high)).sum())) for name, low, high in SIZES),
        ("  crowd regions", report.crowd),
        ("  difficult objects", report.difficult),
        ("masks", report.masks),
        ("classes", len(report.class_counts)),
    )
    for name, count in rows:
        table.add_row(name, f"{count:,}")
    return table


def _classes(counts: dict[str, int]) -> Table:
    table = _table("Classes", "class", "objects", "share")
    total = max(1, sum(counts.values()))
    for name, count in sorted(counts.items(), key=lambda item: -item[1]):
        table.add_row(_plain(name), f"{count:,}", f"{count / total:.1%}")
    return table


def _sizes(dataset: CocoDataset) -> Table:
    table = _table("Sizes", "what", "least", "median", "most")

    def add(name: str, values: Sequence[int] | Sequence[float]) -> None:
        import numpy as np

        if len(values):
            table.add_row(name, *(f"{value:,.0f}" for value in np.quantile(values, (0, 0.5, 1))))

    add("image height, pixels", dataset.heights.tolist())
    add("image width, pixels", dataset.widths.tolist())
    widths, heights = (dataset.boxes[:, 2:] - dataset.boxes[:, :2]).T
    add("box height, pixels", heights.tolist())
    add("box width, pixels", widths.tolist())
    add("objects an image", dataset.objects_per_image().tolist())
    return table


def _suggestions(dataset: CocoDataset) -> Table:
    from rich import box

    from resdet.workflows.fitted_config import measured, reasons, suggested, this_place

    seen, place = measured(dataset), this_place()
    machine = "this GPU" if place == "cuda" else "this CPU"
    table = _table(f"Suggested for these objects on {machine}", "key", "value", "because")
    table.box, table.show_lines = box.SIMPLE, True
    for key, (value, why) in reasons(seen, suggested(seen, place), place).items():
        table.add_row(key, value, why)
    return table


def _notes(skipped: dict[str, Note], skipped_masks: dict[str, Note], fixed: dict[str, Note]) -> Table:
    table = _table("Skipped and mended", "what", "count", "annotation ids, first")
    for verb, notes in (("skipped", skipped), ("mask left out", skipped_masks), ("mended", fixed)):
        for reason, note in notes.items():
            table.add_row(f"{verb}: {reason}", f"{note.count:,}", ", ".join(map(str, note.examples)))
    return table


def _decode_all(dataset: CocoDataset) -> None:
    """Raises UserError with the number of unreadable images and the name of the first."""
    from concurrent.futures import ThreadPoolExecutor

    from resdet.data.images.decode import ImageError, read_image
    from resdet.errors import UserError

    def problem(index: int) -> str | None:
        try:
            _ = read_image(dataset.path(index), int(dataset.heights[index]), int(dataset.widths[index]))
        except ImageError as error:
            return str(error)
        return None

    with ThreadPoolExecutor() as pool:  # decoding releases Python's global interpreter lock
        problems = list(filter(None, pool.map(problem, range(len(dataset)))))
    if problems:
        raise UserError(f"{len(problems)} of {len(dataset)} images cannot be used; the first: {problems[0]}")


def _plain(text: str) -> str:
    """Text that is safe for the terminal: without rich's markup and without control characters."""
    from rich.markup import escape

    from resdet.text import printable

    return escape(printable(text))
