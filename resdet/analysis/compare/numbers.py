"""Formats the numbers of a comparison as text, in the same way for the terminal and for the page."""

from __future__ import annotations

GIGA, MEBI, MILLION = 1e9, 2**20, 1e6
UNDEFINED = "-"


def three(value: float | None) -> str:
    """Three decimals; a dash for an undefined value, here and below."""
    return UNDEFINED if value is None else f"{value:.3f}"


def signed(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:+.3f}"


def percent(value: float | None) -> str:
    return UNDEFINED if value is None else f"{100 * value:+.1f} %"


def between(low: float | None, high: float | None, *, plus: bool = False) -> str:
    """An interval."""
    if low is None or high is None:
        return UNDEFINED
    return f"{signed(low)} .. {signed(high)}" if plus else f"{low:.3f} .. {high:.3f}"


def significant(value: float | None) -> str:
    """Three significant digits."""
    if value is None:
        return UNDEFINED
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
