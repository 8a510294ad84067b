"""What several commands' arguments have in common."""

from __future__ import annotations

from pathlib import Path


def split_inputs(inputs: list[str]) -> tuple[list[str], list[str]]:
    """Files (configs, checkpoints, images) and key=value overrides; a file may have `=` in its name."""
    files = [text for text in inputs if "=" not in text or Path(text).exists()]
    return files, [text for text in inputs if text not in files]
