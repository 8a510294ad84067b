"""Figures of matplotlib as PNG files that carry resdet's mark."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from resdet.outputs import SOFTWARE

ANOTHER_FIGURE = "give another file for --figure"


def png_of(figure: Any, *, dpi: int) -> bytes:
    """A matplotlib.figure.Figure, which is imported only where one is drawn, as a PNG."""
    image = BytesIO()
    figure.savefig(image, dpi=dpi, format="png", metadata=SOFTWARE)
    return image.getvalue()
