"""Text from outside (names in data, paths, values in files), made fit for a terminal, a log or a message."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice


def printable(text: str) -> str:
    r"""The text on one line, with every character that cannot be seen or that a terminal obeys as its escape.

    An ESC becomes the four characters `\x1b`, a line break `\n`, a mark that turns the direction of writing `\u202e`.
    Characters of all scripts stay as they are.
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shortened(text: str, length: int) -> str:
    """Printable text of at most `length` characters; one that was cut ends in three dots."""
    plain = printable(text)
    return plain if len(plain) <= length else plain[: length - 3] + "..."


def first_few(items: Collection[object], most: int = 5, *, separator: str = ", ") -> str:
    """`"3, 8, 9, 12, 40 and 7 more"`: the first `most` of the items as printable text, and how many are left out."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return separator.join(printable(str(item)) for item in islice(items, most)) + more
