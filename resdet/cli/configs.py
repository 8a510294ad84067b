"""List the configs that come with resdet, one line each.

The commands take them by name: resdet train quickstart. A NAME as argument prints that config.

  resdet configs
  resdet configs he2015/resnet101_coco > mine.yaml
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="print this config, to start one of your own")


def run(args: argparse.Namespace) -> int:
    """Prints; returns the exit code. Raises UserError for a name that is not known."""
    from resdet.config.shipped import find_config, shipped_configs, summary

    if args.name is not None:
        print(find_config(args.name).read_text(encoding="utf-8"), end="")
        return 0
    configs = shipped_configs()
    width = max(map(len, configs))
    for name, file in configs.items():
        print(f"{name:{width}}  {summary(file)}")
    return 0
