"""Score a COCO results file against ground truth.

GROUND_TRUTH is a data set, and RESULTS is what a detector found in its images, of resdet or of another program.

  resdet score instances_val.json runs/quickstart/predictions.json --errors
  resdet score instances_val.json predictions.json --iou-type segm --against other/predictions.json
  resdet score VOC2007/ImageSets/Main/test.txt predictions.json --metric voc07
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resdet.config import DataConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument(
        "ground_truth",
        metavar="GROUND_TRUTH",
        help="COCO json, VOC split (ImageSets/Main/test.txt), csv, a folder (its val split), or a format of --plugin",
    )
    parser.add_argument("results", metavar="RESULTS", help="detections, COCO results json (predictions.json)")
    parser.add_argument(
        "choice",
        nargs="*",
        metavar="data.key=value",
        help="what the run chose of a folder or a file: data.val_share, data.val_seed, data.format, data.classes, ...",
    )
    parser.add_argument(
        "--metric",
        default="coco",
        metavar="METRIC",
        help="coco (the default): AP and AR; voc07: AP50 by 11 points; voc12: AP50 by area; "
        "recall: AR of class-agnostic boxes; lvis: AP by LVIS's rules; ilsvrc_det: AP by ILSVRC's overlaps; "
        "ilsvrc_loc: top-5 localization error; or a row that --plugin adds",
    )
    parser.add_argument(
        "--iou-type", choices=("bbox", "segm"), default="bbox", help="compare boxes or masks (default: bbox)"
    )
    parser.add_argument(
        "--backend",
        choices=("auto", "pycocotools", "hotcoco"),
        default="auto",
        help="the evaluator; auto is hotcoco where it is installed (same figures, much faster)",
    )
    parser.add_argument(
        "--count-skipped",
        action="store_true",
        help="count annotations without area or outside their image as objects to find, as pycocotools does",
    )
    parser.add_argument("--errors", action="store_true", help="also print what is wrong, by type, and what it costs")
    parser.add_argument(
        "--against",
        metavar="RESULTS",
        help="other detections of the same images: is the difference more than chance (paired bootstrap)",
    )
    parser.add_argument("--json", metavar="FILE", help="also write the figures, as one flat object of names")


def _choice(overrides: list[str], ground_truth: str) -> DataConfig:
    """The keys of `data` that choose what is to be found."""
    from pathlib import Path

    from resdet.config import load_config
    from resdet.data.sets.opened import is_folder
    from resdet.errors import UserError

    about_folders = ("data.format", "data.val_share", "data.val_seed")
    for override in overrides:
        name = override.partition("=")[0]
        if name not in (*about_folders, "data.classes", "data.rename"):
            raise UserError(
                f"{override}: does not choose what is scored; give {', '.join(about_folders)}, data.classes or "
                "data.rename"
            )
        if name in about_folders and not is_folder(Path(ground_truth)):
            raise UserError(f"{override}: is about a folder, and {ground_truth} is a file; leave it out")
    return load_config(overrides=overrides).data


def run(args: argparse.Namespace) -> int:
    """Scores, prints and writes; returns the exit code. Raises UserError for input that cannot be scored."""
    from pathlib import Path

    from resdet.cli.error_tables import print_differences, print_errors
    from resdet.cli.tables import print_figures
    from resdet.coco.ground_truth import ground_truth as scored_view
    from resdet.data.sets.opened import scored_content
    from resdet.errors import UserError, row_of
    from resdet.evaluation.analysis.analyse import analyse
    from resdet.evaluation.analysis.bootstrap import paired_bootstrap
    from resdet.evaluation.coco import backend_name, read_results
    from resdet.evaluation.metrics import METRICS, OWN_BACKEND, Scoring
    from resdet.files import readable_json
    from resdet.outputs import ANOTHER_JSON, check_output, signed, write_output

    if args.json:
        check_output(Path(args.json), ANOTHER_JSON)
    metric = row_of(METRICS, args.metric, "--metric")
    if metric.own_comparison and args.iou_type == "segm":
        raise UserError(f"--metric {args.metric} compares boxes; leave out --iou-type segm")
    if args.against == args.results:
        raise UserError(f"--against {args.against} is the results file itself; name that of another detector")
    if args.metric != "coco" and (args.errors or args.against):
        raise UserError(f"--errors and --against speak of COCO's figures; leave out --metric {args.metric}")
    choice = _choice(args.choice, args.ground_truth)
    backend = OWN_BACKEND if metric.own_comparison else backend_name(args.backend)
    ground_truth = scored_view(scored_content(Path(args.ground_truth), choice), count_skipped=args.count_skipped)
    results = read_results(args.results, ground_truth)
    figures = metric.score(ground_truth, results, Scoring(iou_type=args.iou_type, backend=args.backend))
    if args.json:
        write_output(Path(args.json), readable_json(signed(figures | {"backend": backend})), ANOTHER_JSON)
    print_figures(
        figures,
        title=f"{args.results} ({args.metric}, by {backend})",
        notes=[*ground_truth.notes(args.iou_type), *results.remarks],
    )
    if args.errors:
        print_errors(analyse(ground_truth, results, iou_type=args.iou_type))
    if args.against:
        other = read_results(args.against, ground_truth)
        runs = {args.against: [other], args.results: [results]}
        print_differences(paired_bootstrap(ground_truth, runs, iou_type=args.iou_type))
    return 0
