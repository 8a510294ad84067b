"""Examine this machine and installation: what would not work, and what to do about it.

Looks at the versions of packages, OpenCV, cores, memory, /dev/shm, disk, GPU and driver, and whether the hubs of
pretrained weights answer; scores an example whose figures are known; and trains the smallest config for some seconds in
a temporary folder. The exit code is 2 if there is a problem. Nothing is changed or sent.

  resdet doctor
  resdet doctor --quick
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("--quick", action="store_true", help="leave out the training")


def run(args: argparse.Namespace) -> int:
    """Prints the findings as they come, then the verdict; returns the exit code. Raises UserError for a problem."""
    from rich.console import Console

    from resdet.analysis.doctor import examine
    from resdet.cli.tables import plain
    from resdet.errors import UserError

    console, marks = Console(highlight=False), {"ok": "green", "note": "yellow", "problem": "red"}
    counts = dict.fromkeys(marks, 0)
    for finding in examine(train=not args.quick):
        counts[finding.verdict] += 1
        line = plain(f"{finding.verdict:7}  {finding.subject:11}  {finding.seen}")
        line.stylize(marks[finding.verdict], 0, 7)
        console.print(line, soft_wrap=True)
        if finding.remedy:
            console.print(plain(f"{'':20}  -> {finding.remedy}"), soft_wrap=True)
    if counts["problem"]:
        raise UserError(f"{counts['problem']} problems; the lines above say what to do")
    notes = f", {counts['note']} notes" if counts["note"] else ""
    console.print(f"verdict: resdet works on this machine{notes}")
    return 0
