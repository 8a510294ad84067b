"""tools/train.py with train.compile, traced and run graph by graph, without the minutes in which code is generated."""

import sys
from functools import partial

import torch

torch.compile = partial(torch.compile, backend="eager")

from resdet.cli.main import main  # noqa: E402

sys.exit(main(["train", "train.compile=true", *sys.argv[1:]]))
