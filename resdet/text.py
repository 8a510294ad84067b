"""Makes text from outside (names in data, paths, values in files) safe for a terminal, a log or a message."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice


def printable(text: str) -> str:
    r"""The text on one line; every invisible or control character is replaced by its escape sequence.

    An ESC becomes the four characters `\x1b`, a line break `\n`, a mark that turns the direction of writing `\u202e`.
    Characters of all scripts are kept.
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shortened(text: str, length: int) -> str:
    """Printable text of at most `length` characters; text that was cut ends in three dots."""
    plain = printable(text)
    return plain if len(plain) <= length else plain[: length - 3] + "..."


def said_by(error: BaseException, length: int = 200) -> str:
    """What an error of a library says, on one line of at most `length` characters; its type if it says nothing."""
    return shortened(" ".join(str(error).split()) or type(error).__name__, length)


def first_few(items: Collection[object], most: int = 5, *, separator: str = ", ") -> str:
    """`"3, 8, 9, 12, 40 and 7 more"`: the first `most` of the items as printable text, and the number of the others."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return separator.join(printable(str(item)) for item in islice(items, most)) + more
