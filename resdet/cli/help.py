"""The text of `--help` as wide as the terminal: paragraphs are wrapped, and examples stay lines that can be copied."""

from __future__ import annotations

import argparse
import re
import textwrap
from shutil import get_terminal_size

WIDEST = 100  # columns: longer lines are hard to read
INDENT = " " * 6
CONTINUED = f" \\\n{INDENT}"  # a shell reads on in the next line


class HelpFormatter(argparse.HelpFormatter):
    """Fills paragraphs; an indented line is an example, which a backslash continues if it is too long."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=text_width())

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(filled(block, width) for block in text.strip("\n").split("\n\n"))


def text_width() -> int:
    """The columns for text, in this terminal."""
    return min(get_terminal_size().columns, WIDEST) - 2


def filled(block: str, width: int) -> str:
    """A block without empty lines: a paragraph, or examples."""
    lines = block.splitlines()
    paragraph = " ".join(line for line in lines if not line.startswith(" "))
    examples = [_continued(line, width) for line in lines if line.startswith(" ")]
    return "\n".join([textwrap.fill(paragraph, width) if paragraph else "examples:", *examples])


def _continued(command: str, width: int) -> str:
    """A command line, broken between its arguments, so that it can be copied into a shell."""
    if len(command) <= width:
        return command
    joined = re.sub(r"( --[\w-]+) (?!-)", r"\1\0", command)  # an option and its value stay in one line
    room = width - len(CONTINUED.partition("\n")[0])
    parts = textwrap.wrap(joined, room, break_long_words=False, break_on_hyphens=False, subsequent_indent=INDENT)
    return CONTINUED.join(part.removeprefix(INDENT) for part in parts).replace("\0", " ")


def listed(rows: dict[str, str], first: int, width: int) -> list[str]:
    """Names and what they mean, in two columns of which the first has `first` characters."""
    indent = " " * (first + 4)
    return [textwrap.fill(f"  {name:{first}}  {text}", width, subsequent_indent=indent) for name, text in rows.items()]
