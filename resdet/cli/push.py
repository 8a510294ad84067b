"""Upload a detector to the Hugging Face Hub, with a model card.

GIVEN is a run (its best checkpoint), a checkpoint or a model file: it is uploaded as model.safetensors, and everybody
who may read the repository can give hf://OWNER/NAME (or hf://OWNER/NAME@REVISION) as a CHECKPOINT to predict, evaluate,
export and serve. Or GIVEN is a folder that resdet export wrote: its files are uploaded as they are. The repository is
made if it is not there; `hf auth login` or HF_TOKEN says who you are.

  resdet push runs/quickstart OWNER/NAME --private
  resdet push exported OWNER/NAME
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("given", type=Path, metavar="GIVEN", help="a run, a checkpoint, a model file or an export")
    parser.add_argument("repository", metavar="OWNER/NAME", help="the repository on the Hub")
    parser.add_argument("--private", action="store_true", help="a new repository is private")
    parser.add_argument(
        "--measure", action="store_true", help="measure figures with intervals on the val set, for the card of a model"
    )


def run(args: argparse.Namespace) -> int:
    """Uploads, and prints what was uploaded. Raises UserError for a user's mistake."""
    from resdet.text import printable
    from resdet.workflows.push import push

    done = push(args.given, args.repository, private=args.private, measure=args.measure)
    print(printable(f"{done.address}: {', '.join(done.files)}"))
    return 0
