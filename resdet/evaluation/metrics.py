"""The figures of all evaluations: the meaning of each, and whether higher is better. One literal table, one row per
metric.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple


class Metric(NamedTuple):
    """`name` is a regular expression for the whole name; `meaning` may contain its groups."""

    name: str
    meaning: str
    higher_is_better: bool = True


METRICS = (
    Metric(r"(?:bbox|segm)/AP", "average precision, mean over IoU .50:.95"),
    Metric(r"(?:bbox|segm)/AP(\d\d)", "average precision at IoU .{}"),
    Metric(r"(?:bbox|segm|recall)/AR(\d+)", "average recall, best {} an image"),
    Metric(r"(?:bbox|segm)/(A[PR])s", "{} of small objects, up to 32x32 pixels"),
    Metric(r"(?:bbox|segm)/(A[PR])m", "{} of medium objects"),
    Metric(r"(?:bbox|segm)/(A[PR])l", "{} of large objects, from 96x96 pixels"),
    Metric(r"recall/ARs(\d+)", "AR of small objects, up to 32x32 pixels, best {}"),
    Metric(r"recall/ARm(\d+)", "AR of medium objects, best {}"),
    Metric(r"recall/ARl(\d+)", "AR of large objects, from 96x96 pixels, best {}"),
    Metric(r"voc/AP50", "Pascal VOC average precision at IoU .50, mean over classes"),
    Metric(r"top1/accuracy", "share of images whose best class is right"),
    Metric(r"top1/error", "share of images whose best class is wrong", higher_is_better=False),
    Metric(r"train/error", "the same on training images", higher_is_better=False),
)


def metric(name: str) -> Metric | None:
    """The row of a figure over all classes, with its meaning filled in; None if the table has no such row."""
    for row in METRICS:
        if match := re.fullmatch(row.name, name):
            return Metric(name, row.meaning.format(*match.groups()), row.higher_is_better)
    return None


def meaning(name: str) -> str:
    """The meaning of a figure, in words; empty for an unknown figure."""
    row = metric(name)
    return row.meaning if row else ""


def overall(figures: Mapping[str, float | None]) -> dict[str, float | None]:
    """The figures over all classes."""
    return {name: value for name, value in figures.items() if name.count("/") == 1}


def by_class(figures: Mapping[str, float | None]) -> dict[str, dict[str, float | None]]:
    """{"person": {"bbox/AP": .27, "bbox/AR": .41}, ...}; a class name may contain slashes."""
    rows: dict[str, dict[str, float | None]] = {}
    for name, value in figures.items():
        if name.count("/") > 1:
            kind, figure, class_name = name.split("/", 2)
            rows.setdefault(class_name, {})[f"{kind}/{figure}"] = value
    return rows
