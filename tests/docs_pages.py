"""The pages of the documentation, and what a reader would type from them."""

from __future__ import annotations

import re
import shlex
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "datasets/README.md")),
]
INDENTED = re.compile(r"(?:^\n)((?:^ {4,}.*\n|^\n)+)", re.MULTILINE)
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
COMMAND = re.compile(r"^(?:resdet (?=[a-z])|(?:python |python3 |torchrun [^/]*?)?tools/(?=[a-z_]+\.py))")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def console_blocks(text: str) -> list[str]:
    """The blocks marked `console`, and those that are indented."""
    return CONSOLE.findall(text) + [textwrap.dedent(block) for block in INDENTED.findall(re.sub(FENCED, "", text))]


def lines_of(block: str) -> list[str]:
    """The command lines of a block, each joined with those that continue it."""
    joined = block.replace("\\\n", " ")
    return [part.strip() for line in joined.splitlines() for part in line.split(" && ")]


def inline_code(text: str) -> list[str]:
    """What stands between backticks, outside blocks; a bar in a table is written with a backslash."""
    return [code.replace("\\|", "|") for code in INLINE.findall(re.sub(FENCED, "", text))]


def arguments_of(line: str) -> list[str] | None:
    """The command and its arguments, as `resdet` takes them; None for a line that is no command of resdet."""
    found = COMMAND.match(line)
    if not found:
        return None
    words = shlex.split(line[found.end() :], comments=True)
    name, *rest = re.split(r"\s", words[0])[0].removesuffix(".py").replace("_", "-"), *words[1:]
    ends = [index for index, word in enumerate(rest) if word in ("|", ">", "<", "2>&1", ";")]
    return [name, *rest[: ends[0] if ends else len(rest)]]
