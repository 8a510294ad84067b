"""The parsing of arguments that several commands share."""

from __future__ import annotations

import os

CHECKPOINT = "a run, a checkpoint, a model file, or the name of a published detector (resdet models lists them)"
OVERRIDES = "changes of keys of its config (resdet train --help-config lists the keys)"


def split_inputs(inputs: list[str]) -> tuple[list[str], list[str]]:
    """Separates files (configs, checkpoints, images) from key=value overrides; a file name may contain `=`."""
    files = [text for text in inputs if "=" not in text or os.path.exists(text)]
    return files, [text for text in inputs if text not in files]
