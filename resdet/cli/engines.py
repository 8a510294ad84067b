"""The options of commands that work on this machine or on a cluster."""

from __future__ import annotations

import argparse

from resdet.ray_cluster import ENGINES


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Declares --engine and --address."""
    known = ", ".join(f"{name}: {what}" for name, what in ENGINES.items())
    parser.add_argument(
        "--engine", choices=ENGINES, default="local", help=f"where to work; {known} (default: %(default)s)"
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="head of the Ray cluster (default: RAY_ADDRESS, or the one that runs here)",
    )
