"""Write a run's report: one HTML file with its figures, what it gets wrong, pictures, curves, data and config.

RUN is the folder that resdet train wrote; training writes the report itself at its end. The file needs neither a
network nor a server. A part whose file is missing is left out, and the page names the command that creates the file.

  resdet report runs/quickstart
  resdet evaluate runs/quickstart --output runs/quickstart

The second command brings what a report without pictures lacks: predictions.json, of the newest checkpoint.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write it (default: RUN/report.html)")


def run(args: argparse.Namespace) -> int:
    """Writes the report; returns the exit code. Raises UserError for a folder that is no run."""
    from resdet.analysis.report import write_report
    from resdet.text import printable

    print(printable(f"report: {write_report(args.run, args.output)}"))
    return 0
