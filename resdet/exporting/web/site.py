"""The files of the page: resdet's own beside those of onnxruntime-web."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from resdet.exporting.web.runtime_files import SHA256, runtime_files

LICENCE = "LICENSE.onnxruntime-web.txt"
OWN = ("index.html", "page.css", "page.js", "drawing.js", "worker.js", "detector.js", LICENCE)
NAMES = (*OWN, *SHA256)


def page_files(runtime: Path | None = None) -> dict[str, bytes]:
    """All files of the page but the model and its contract, by name. Raises UserError as `runtime_files` does."""
    page = resources.files("resdet.exporting.web") / "page"
    return {name: (page / name).read_bytes() for name in OWN} | runtime_files(runtime)
