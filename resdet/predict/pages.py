"""TIFF files with several pages: the first is predicted, and the others are told."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image

from resdet.data.images.orientation import PILLOW_ERRORS

TIFF = (".tif", ".tiff")


def note_of_pages(path: Path) -> str | None:
    """A line about a TIFF with several pages, None for any other file."""
    if path.suffix.lower() not in TIFF:
        return None
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=("TIFF",)) as image:
            pages = getattr(image, "n_frames", 1)
    except (*PILLOW_ERRORS, Image.DecompressionBombError):
        return None  # its reading reports the damage
    if pages == 1:
        return None
    return f"{path}: has {pages} pages, of which the first is read; save the others as files of their own"
