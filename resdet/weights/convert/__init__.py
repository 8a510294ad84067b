"""Converts weights of other toolkits to resdet's names, with a contract; one file per toolkit."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from resdet.weights.convert.detectron2 import from_detectron2
from resdet.weights.convert.msra import from_msra
from resdet.weights.convert.names import Converted
from resdet.weights.convert.torchvision import from_torchvision, keep_classes

__all__ = ["FORMATS", "Converted", "format_of", "from_detectron2", "from_msra", "from_torchvision", "keep_classes"]

FORMATS: dict[str, Callable[..., Converted]] = {
    "detectron2": from_detectron2,
    "torchvision": from_torchvision,
    "msra": from_msra,
}


def format_of(names: Iterable[str]) -> str | None:
    """The key of FORMATS whose typical names occur; None for a file with resdet's own names or with unknown names."""
    for name in names:
        if name.endswith("stem.conv1.weight"):
            return "detectron2"
        if name == "conv1_w":
            return "msra"
        if name.startswith("backbone.body."):
            return "torchvision"
    return None
